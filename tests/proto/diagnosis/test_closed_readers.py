"""Closed readers stay listed for an hour, and only so many."""

from __future__ import annotations

from openguild_proto.diagnosis.closed_readers import ClosedReader, ClosedReaders
from openguild_proto.limits import CLOSED_READER_SECS


def closed(at: float) -> ClosedReader:
    return ClosedReader(at, "alice", "192.0.2.1", "general", 7, "lagged")


def test_the_newest_come_first_and_the_oldest_go() -> None:
    readers = ClosedReaders(capacity=3)
    for at in range(5):
        readers.add(closed(float(at)))
    assert [reader.closed_at for reader in readers.newest(10, 5.0)] == [4.0, 3.0, 2.0]
    assert [reader.closed_at for reader in readers.newest(1, 5.0)] == [4.0]


def test_after_an_hour_a_reader_is_forgotten() -> None:
    readers = ClosedReaders()
    readers.add(closed(0.0))
    readers.add(closed(10.0))
    assert len(readers.newest(10, CLOSED_READER_SECS)) == 2
    assert [reader.closed_at for reader in readers.newest(10, CLOSED_READER_SECS + 5)] == [10.0]


def test_missed_events_are_added_up_by_channel() -> None:
    readers = ClosedReaders()
    for at, channel_id, missed in (
        (0.0, "old", 9),
        (50.0, "general", 7),
        (60.0, None, 5),
        (61.0, "general", 1),
        (62.0, "random", 30),
    ):
        readers.add(ClosedReader(at, "alice", "192.0.2.1", channel_id, missed, "lagged"))
    assert readers.missed_by_channel(20.0, 70.0) == [("random", 30), ("general", 8)]

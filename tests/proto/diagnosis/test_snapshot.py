"""The snapshots of several workers become one."""

from __future__ import annotations

import pytest

from openguild_proto.diagnosis.snapshot import (
    LISTED,
    ChannelLine,
    ClosedLine,
    LoginLine,
    ReaderLine,
    UserLine,
    counted_before,
    merged,
)
from tests.proto.diagnosis.snapshots import component, snapshot


def test_one_worker_is_itself_and_none_is_an_error() -> None:
    only = snapshot()
    assert merged([only]) is only
    with pytest.raises(ValueError, match="no snapshots"):
        merged([])


def test_totals_are_added_and_the_worst_state_is_shown() -> None:
    broken = snapshot(
        status="unavailable",
        components=[component("database", "error")],
        requests=5,
        uptime_secs=10.0,
        stall_max_secs=0.5,
    )
    both = merged([snapshot(requests=7, memory_bytes=3, stall_max_secs=0.1), broken])
    assert (both.status, both.requests, both.memory_bytes, both.workers, both.pool_size) == (
        "unavailable",
        12,
        3,
        2,
        20,
    )
    assert (both.uptime_secs, both.stall_max_secs) == (10.0, 0.5)
    assert both.components == broken.components


def test_a_channel_of_two_workers_is_one_line_with_the_slower_reader() -> None:
    def line(depth: int, subscribers: int, behind: int, user: str) -> ChannelLine:
        return ChannelLine(channel_id="a", depth=depth, subscribers=subscribers, behind=behind, slowest_user=user)

    other = ChannelLine(channel_id="b", depth=50, subscribers=1)
    both = merged([snapshot(channels=[line(9, 2, 9, "bob")]), snapshot(channels=[other, line(20, 3, 20, "carol")])])
    assert both.channels == [other, line(20, 5, 20, "carol")]


def test_lists_are_sorted_and_bounded() -> None:
    def reader(behind: int) -> ReaderLine:
        return ReaderLine(user_id="u", session_id="s", address="", behind=behind, channel_id=None)

    def closed(ago: float) -> ClosedLine:
        return ClosedLine(secs_ago=ago, user_id="u", address="", missed=1, cause="lagged", channel_id=None)

    both = merged(
        [
            snapshot(
                readers=[reader(number) for number in range(LISTED)],
                closed=[closed(5.0)],
                users=[UserLine(user_id="a", requests=2), UserLine(user_id="b", requests=3)],
            ),
            snapshot(
                readers=[reader(1_000)], closed=[closed(1.0), closed(9.0)], users=[UserLine(user_id="a", requests=4)]
            ),
        ]
    )
    failing = [snapshot(login_addresses=[LoginLine(address=a, failed=n)]) for a, n in (("a", 2), ("b", 3), ("a", 4))]
    assert [(line.address, line.failed) for line in merged(failing).login_addresses] == [("a", 6), ("b", 3)]
    assert [line.behind for line in both.readers] == [1_000, *range(LISTED - 1, 0, -1)]
    assert [line.secs_ago for line in both.closed] == [1.0, 5.0, 9.0]
    assert [(line.user_id, line.requests) for line in both.users] == [("a", 6), ("b", 3)]


def test_growth_is_that_of_the_processes_that_were_there() -> None:
    """One that was started since has counted all in this time; what one counted that gave no answer before is older."""
    before = [snapshot(worker=0, requests=100, uptime_secs=60.0), snapshot(worker=1, requests=900, uptime_secs=60.0)]
    steady = snapshot(worker=0, requests=110, uptime_secs=62.0)
    for other, grown in (
        ([snapshot(worker=1, requests=905, uptime_secs=62.0)], 15),
        ([snapshot(worker=1, requests=4, uptime_secs=1.0)], 14),
        ([], 10),
        ([snapshot(worker=2, requests=7_000, uptime_secs=3_600.0)], 10),
    ):
        now = [steady, *other]
        assert merged(now).requests - counted_before(now, before).requests == grown

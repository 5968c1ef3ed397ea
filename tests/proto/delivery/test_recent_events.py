"""Events that are delivered from memory (PROTOCOL 16.8.7)."""

from __future__ import annotations

from openguild_proto.delivery.recent_events import MAX_RECENT_BYTES, RECENT_SECS, RecentEvents
from openguild_proto.effects.channels import ReadEvents
from openguild_proto.effects.deliveries import BehindLog, MoveCursors
from openguild_proto.effects.logs import ReadLogs
from openguild_proto.records import LogPosition, StoredEvent
from tests.support.mirrored_guild import World

LOG = "0cf01fa2-8e26-4c79-a682-343d1f07cfb3"


def event(sequence: int, wire: bytes = b"{}") -> StoredEvent:
    return StoredEvent(LOG, sequence, f"${sequence}", wire, 0)


def lacks(after: int, head: int, epoch: int = 1) -> BehindLog:
    return BehindLog("guild", LogPosition(LOG, 1, head), after, epoch)


def found(recent: RecentEvents, log: BehindLog, size: int = 200) -> list[int] | None:
    events = recent.behind(log, size)
    return None if events is None else [event.sequence for event in events]


def test_what_is_whole_is_found() -> None:
    recent = RecentEvents()
    for sequence in (5, 6, 7):
        recent.add(event(sequence), 0.0)
    assert found(recent, lacks(4, 7)) == [5, 6, 7]
    assert found(recent, lacks(6, 7)) == [7]
    assert found(recent, lacks(3, 7)) is None, "the one before is not here"
    assert found(recent, lacks(4, 8)) is None, "the newest is not here"
    assert found(recent, lacks(4, 7), size=2) is None, "what follows may be a redaction"
    assert found(recent, lacks(4, 7, epoch=2)) is None


def test_events_before_a_redaction_are_read() -> None:
    recent = RecentEvents()
    recent.add(event(1), 0.0)
    recent.add(event(2, b'{"event_type":"message.redacted"}'), 0.0)
    assert found(recent, lacks(0, 2)) is None


def test_it_is_bounded_in_time_and_bytes() -> None:
    recent = RecentEvents()
    recent.add(event(1), 0.0)
    recent.add(event(2), RECENT_SECS / 2)
    recent.forget(RECENT_SECS)
    assert (found(recent, lacks(0, 2)), found(recent, lacks(1, 2))) == (None, [2])
    recent.add(event(3, b"x" * MAX_RECENT_BYTES), RECENT_SECS)
    assert found(recent, lacks(1, 2)) is None


def test_a_peer_that_is_level_gets_an_event_without_a_reading() -> None:
    world = World()
    for number in range(5):
        world.owner.post(world.channel)
        (stored,) = world.owner.tables.perform(ReadEvents(log_id=world.channel, limit=1, after=number)) or ()
        world.driven.at(world.process).grew(world.channel, stored)
        world.driven.run(0.03)
        world.assert_level()
    assert not any(isinstance(effect, ReadLogs) for effect in world.driven.asked)
    world.driven.run(0.2)
    stored_cursors = [effect for effect in world.driven.asked if isinstance(effect, MoveCursors)]
    assert stored_cursors[-1].moves[-1].place == LogPosition(world.channel, 1, 5)
    assert 1 <= len(stored_cursors) < 5, "many moves, few writings"

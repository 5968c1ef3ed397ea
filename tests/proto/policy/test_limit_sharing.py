"""Limits of several replicas: together hardly more than one, and never open when the wire is away (PROTOCOL 9.6)."""

from __future__ import annotations

import msgspec
import pytest

from openguild_proto.policy.limit_sharing import (
    CROWD,
    FORGOTTEN_SECS,
    HEARD_SECS,
    HEARTBEAT_SECS,
    PUBLISH_SECS,
    SILENT_SECS,
    LimitSharing,
)
from openguild_proto.policy.ratelimit import SlidingWindow


class Replicas:
    """Several of them on one clock; `wire`: whether they are connected. What arrives is the wire's answer, too."""

    def __init__(self, count: int, limit: int = 60) -> None:
        self.now = 0.0
        self.wire = True
        self.black_hole = False  # connected, and nothing comes through
        self.windows = [SlidingWindow(limit, 60.0) for _ in range(count)]
        self.sharings = [LimitSharing(f"r{number}", {"user": window}) for number, window in enumerate(self.windows)]

    def step(self, secs: float = 0.25) -> None:
        self.now += secs
        for sender in self.sharings:
            payload = sender.tick(self.now, connected=self.wire)
            if payload is not None:
                self.deliver(payload)

    def deliver(self, payload: bytes) -> None:
        for receiver in self.sharings:
            if not self.black_hole:
                receiver.answered(self.now)
                receiver.received(payload, self.now)

    def hit(self, place: int) -> bool:
        return self.windows[place].hit("alice", self.now) is None


def test_together_they_admit_as_much_as_one() -> None:
    replicas = Replicas(3)
    admitted = 0
    for turn in range(400):
        admitted += replicas.hit(turn % 3)
        if turn % 5 == 4:
            replicas.step(0.05)
    assert 60 <= admitted <= 64, "what was said between two messages may be too much"


def test_without_the_wire_each_allows_its_share() -> None:
    replicas = Replicas(3)
    replicas.step()
    assert [sharing.replicas for sharing in replicas.sharings] == [3, 3, 3]
    replicas.wire = False
    replicas.step()
    admitted = sum(replicas.hit(turn % 3) for turn in range(400))
    assert admitted == 60, "three times a third"
    replicas.step(100.0)
    assert sum(replicas.hit(turn % 3) for turn in range(400)) == 60, "however long it is away"
    replicas.step()
    replicas.wire = True
    replicas.step(61.0)  # it answers
    replicas.step()
    assert sum(replicas.hit(0) for _ in range(100)) == 60, "and the whole when it is back"


def test_a_wire_that_is_silent_is_away_before_it_is_given_up() -> None:
    """A black hole: still connected for as long as nobody is forgotten, and longer."""
    replicas = Replicas(3)
    for _ in range(8):
        replicas.step()
    replicas.black_hole = True
    for _ in range(int(SILENT_SECS / 0.25) + 1):
        replicas.step()
    admitted = 0
    for turn in range(800):
        replicas.step() if turn % 10 == 9 else None
        admitted += replicas.hit(turn % 3)
    assert admitted == 60, "three times a third"
    replicas.wire = False
    replicas.step(60.0)
    assert [sharing.replicas for sharing in replicas.sharings] == [3, 3, 3]
    assert sum(replicas.hit(turn % 3) for turn in range(400)) == 60, "and the same when it is given up"


def test_a_wire_that_comes_back_for_a_moment_makes_nobody_forgotten() -> None:
    replicas = Replicas(2)
    replicas.step()
    replicas.wire = False
    replicas.step(100.0)
    replicas.wire, replicas.black_hole = True, True
    for sharing in replicas.sharings:
        sharing.answered(replicas.now)
    replicas.step()
    replicas.wire = False
    replicas.step(61.0)
    assert sum(replicas.hit(turn % 2) for turn in range(400)) == 60


@pytest.mark.parametrize("at_least", [1, 3])
def test_who_starts_while_the_wire_is_away_divides_by_what_it_was_told(at_least: int) -> None:
    window = SlidingWindow(60, 60.0)
    sharing = LimitSharing("new", {"user": window}, at_least=at_least)
    sharing.tick(0.0, connected=False)
    assert sum(window.hit("alice", 0.0) is None for _ in range(100)) == 60 // at_least
    sharing.answered(1.0)
    sharing.tick(1.0, connected=True)
    assert sharing.divisor == at_least, "it is back, and carries nothing yet"
    for number in range(at_least - 1):
        sharing.received(LimitSharing(f"r{number}", {}).probe(), 1.0)
    sharing.tick(1.0, connected=True)
    assert sum(window.hit("alice", 1.0) is None for _ in range(100)) == 60 - 60 // at_least, "all were heard"


@pytest.mark.parametrize(("heard", "parts"), [(0, 3), (1, 2), (2, 1)])
def test_replicas_that_are_not_heard_are_taken_to_admit(heard: int, parts: int) -> None:
    """The wire answers, and what the others say does not come: their account is another, or the cluster is parted."""
    window = SlidingWindow(60, 60.0)
    sharing = LimitSharing("here", {"user": window}, at_least=3)
    for now in (1.0, 1.0 + HEARD_SECS):
        sharing.answered(now)
        for number in range(heard):
            sharing.received(LimitSharing(f"r{number}", {}).probe(), now)
        sharing.tick(now, connected=True)
    assert (sharing.divisor, window.divisor) == (parts, parts)


def test_a_probe_makes_its_sender_known_and_counts_for_nothing() -> None:
    replicas = Replicas(2)
    replicas.sharings[1].received(replicas.sharings[0].probe(), 0.0)
    assert replicas.sharings[1].replicas == 2
    assert len(replicas.windows[1]) == 0


def test_a_replica_that_is_gone_is_forgotten() -> None:
    replicas = Replicas(2)
    replicas.step()
    gone = replicas.sharings.pop()
    assert gone.replicas == 2
    for _ in range(int(FORGOTTEN_SECS / HEARTBEAT_SECS) + 1):
        replicas.step(HEARTBEAT_SECS)
    assert replicas.sharings[0].replicas == 1


@pytest.mark.parametrize("count", [CROWD, 3 * CROWD])
def test_a_replica_gets_no_more_messages_among_many(count: int) -> None:
    """Each has something to say all the time; all are known to all, and what is said counts."""
    replicas = Replicas(count, limit=1_000_000)
    heard = [0]
    deliver = replicas.deliver

    def counted(payload: bytes) -> None:
        heard[0] += 1
        deliver(payload)

    replicas.deliver = counted  # type: ignore[method-assign]  # looks on
    secs = 0.0
    for turn in range(100):
        for place in range(count):
            replicas.hit(place)
        replicas.step(PUBLISH_SECS)
        if turn == 20:  # they know each other
            heard[0], secs = 0, replicas.now
    assert heard[0] <= 1.1 * CROWD / PUBLISH_SECS * (replicas.now - secs)
    assert {sharing.replicas for sharing in replicas.sharings} == {count}
    assert {window.divisor for window in replicas.windows} == {1}
    window = replicas.windows[0]
    window.change(int(0.9 * 100 * count), 60.0)
    assert window.hit("alice", replicas.now) is not None, "what the others have admitted counts here"


def test_nothing_to_say_is_said_once_a_second() -> None:
    sharing = LimitSharing("r", {"user": SlidingWindow(5, 60.0)})
    said = [sharing.tick(tick / 4, connected=True) is not None for tick in range(40)]
    assert sum(said) == 10


def test_what_is_no_message_is_refused_and_absurd_counts_are_bounded() -> None:
    sharing = LimitSharing("r", {"user": SlidingWindow(5, 60.0)})
    with pytest.raises(msgspec.DecodeError):
        sharing.received(b"[]", 0.0)
    window = SlidingWindow(5, 60.0)
    sharing = LimitSharing("r", {"user": window})
    sharing.received(b'{"replica":"x","counts":{"user":{"a":1000000000},"unknown":{"a":1}}}', 0.0)
    assert window.hit("a", 1.0) == pytest.approx(59.0)
    assert window.hit("b", 1.0) is None

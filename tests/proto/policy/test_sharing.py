"""Limits of several replicas: together hardly more than one, and never open when the wire is away (A14)."""

from __future__ import annotations

import msgspec
import pytest

from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.policy.sharing import FORGOTTEN_SECS, HEARTBEAT_SECS, LimitSharing


class Replicas:
    """Several of them on one clock; `wire` says whether messages travel."""

    def __init__(self, count: int, limit: int = 60) -> None:
        self.now = 0.0
        self.wire = True
        self.windows = [SlidingWindow(limit, 60.0) for _ in range(count)]
        self.sharings = [LimitSharing(f"r{number}", {"user": window}) for number, window in enumerate(self.windows)]

    def step(self, secs: float = 0.25) -> None:
        self.now += secs
        for sender in self.sharings:
            payload = sender.tick(self.now, connected=self.wire)
            if payload is not None:
                for receiver in self.sharings:
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
    replicas.step(61.0)
    assert sum(replicas.hit(0) for _ in range(100)) == 60, "and the whole when it is back"


def test_a_replica_that_is_gone_is_forgotten() -> None:
    replicas = Replicas(2)
    replicas.step()
    gone = replicas.sharings.pop()
    assert gone.replicas == 2
    for _ in range(int(FORGOTTEN_SECS / HEARTBEAT_SECS) + 1):
        replicas.step(HEARTBEAT_SECS)
    assert replicas.sharings[0].replicas == 1


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

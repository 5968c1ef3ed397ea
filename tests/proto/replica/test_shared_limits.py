"""A replica tells the others what it admits, and divides its limits while they may not hear of it."""

from __future__ import annotations

import random

import msgspec
import pytest

from openguild_proto.bus.topics import Topic
from openguild_proto.fanout.hub import Hub
from openguild_proto.gateway.feeds import Feeds
from openguild_proto.policy.limit_sharing import PUBLISH_SECS, SILENT_SECS, LimitSharing
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.replica.actions import Broadcast, Log
from openguild_proto.replica.replica import Replica
from tests.support.driven_replica import Driven


class Sharing(Driven):
    def __init__(self) -> None:
        super().__init__()
        self.window = SlidingWindow(60, 60.0)
        self.sharing = LimitSharing("here", {"user": self.window}, at_least=3)
        self.replica = Replica(
            self.hub, Feeds(Hub()), self.tokens, random.Random(0).random, self.sharing, replica_id="here"
        )
        self.replica.share_limits(now=self.now)
        self.perform_actions()


@pytest.fixture
def driven() -> Sharing:
    return Sharing()


def test_what_is_admitted_is_told_at_the_next_interval(driven: Sharing) -> None:
    driven.actions.clear()
    assert driven.window.hit("alice", driven.now) is None
    driven.sleep(PUBLISH_SECS)
    (told,) = driven.taken(Broadcast)
    assert msgspec.json.decode(told.payload)["counts"] == {"user": {"alice": 1}}


def test_what_another_replica_has_admitted_counts_here(driven: Sharing) -> None:
    other = SlidingWindow(60, 60.0)
    elsewhere = LimitSharing("there", {"user": other})
    for _ in range(60):
        other.hit("alice", driven.now)
    payload = elsewhere.tick(driven.now, connected=True)
    assert payload is not None
    driven.replica.broadcast_message(Topic.LIMITS, payload, now=driven.now)
    assert driven.window.hit("alice", driven.now) is not None


def test_limits_are_divided_unless_the_wire_answers_and_delivers(driven: Sharing) -> None:
    driven.replica.bus_answered(now=driven.now)
    driven.replica.broadcast_message(Topic.LIMITS, LimitSharing("a", {}).probe(), now=driven.now)
    driven.replica.broadcast_message(Topic.LIMITS, LimitSharing("b", {}).probe(), now=driven.now)
    driven.sleep(PUBLISH_SECS)
    assert driven.replica.limit_divisor == 1
    driven.replica.bus_state(True, limits_delivered=False, now=driven.now)
    driven.sleep(PUBLISH_SECS)
    assert driven.replica.limit_divisor == 3
    driven.replica.bus_state(True, now=driven.now)
    driven.sleep(PUBLISH_SECS)
    assert driven.replica.limit_divisor == 1
    driven.sleep(SILENT_SECS)
    assert driven.replica.limit_divisor == 3


def test_nothing_is_told_while_the_wire_is_away(driven: Sharing) -> None:
    driven.replica.bus_state(False, now=driven.now)
    driven.actions.clear()
    driven.window.hit("alice", driven.now)
    driven.sleep(10 * PUBLISH_SECS)
    assert driven.taken(Broadcast) == []


def test_a_malformed_message_is_logged(driven: Sharing) -> None:
    driven.replica.broadcast_message(Topic.LIMITS, b"{", now=driven.now)
    driven.perform_actions()
    assert [line.message for line in driven.taken(Log)] == ["a limits message from another replica is malformed"]


def test_a_replica_that_is_alone_shares_nothing() -> None:
    driven = Driven()
    replica = Replica(Hub(), Feeds(Hub()), driven.tokens, random.Random(0).random, replica_id="here")
    replica.share_limits(now=0.0)
    replica.broadcast_message(Topic.LIMITS, b"{", now=0.0)
    replica.bus_answered(now=0.0)
    assert (replica.next_action(), replica.next_deadline()) == (None, None)
    assert (replica.probe(Topic.LIMITS), replica.limit_divisor) == (b"", 1)

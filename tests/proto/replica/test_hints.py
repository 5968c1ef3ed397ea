"""Hints reach those concerned on every replica, and cost nobody an event."""

from __future__ import annotations

import pytest

from openguild_proto.bus.topics import Topic
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.hints import ReadHint, TypingHint
from openguild_proto.limits import MAX_HINT_DEPTH
from openguild_proto.records import ReadState
from openguild_proto.replica.actions import Publish
from openguild_proto.replica.notifications import user_ring
from tests.support.deeds import NOW
from tests.support.driven_replica import Driven, Socket


@pytest.fixture
def driven() -> Driven:
    return Driven()


def typed(socket: Socket) -> list[dict[str, str]]:
    return [frame for frame in socket.frames if frame["kind"] == "typing"]


def test_typing_reaches_the_others_in_the_channel_on_every_replica() -> None:
    here = Driven()
    there = Driven(here.elsewhere.tables, replica_id="there")
    alice, bob, eve = (here.elsewhere.user() for _ in range(3))
    guild = here.elsewhere.guild(alice)
    channel = here.elsewhere.channel(alice, guild)
    here.elsewhere.perform(GrantGuildRole(guild_id=guild, user_id=bob, role="guest", now_ms=NOW))
    hers, his, other, evil = here.open(alice), here.open(bob), there.open(bob), here.open(eve)
    here.replica.announce(TypingHint(channel, alice, "Hel"), now=here.now)
    here.perform_actions()
    (published,) = here.taken(Publish)
    assert published.channel_id == channel
    there.replica.channel_message(channel, published.payload, now=there.now)
    there.perform_actions()
    frame = {"kind": "typing", "channel_id": channel, "event": {"user_id": alice, "preview": "Hel"}}
    assert (typed(his), typed(other)) == ([frame], [frame])
    assert (hers.frames, evil.frames) == ([], [])


def test_a_repeated_signal_is_told_once(driven: Driven) -> None:
    alice, bob = driven.elsewhere.user(), driven.elsewhere.user()
    guild = driven.elsewhere.guild(alice)
    channel = driven.elsewhere.channel(alice, guild)
    driven.elsewhere.perform(GrantGuildRole(guild_id=guild, user_id=bob, role="guest", now_ms=NOW))
    his = driven.open(bob)
    for _ in range(5):
        driven.replica.announce(TypingHint(channel, alice), now=driven.now)
        driven.perform_actions()
    assert len(typed(his)) == len(driven.taken(Publish)) == 1
    assert typed(his)[0]["event"] == {"user_id": alice}


def test_a_slow_reader_loses_hints_and_no_event(driven: Driven) -> None:
    user = driven.elsewhere.user()
    channel = driven.elsewhere.channel(user)
    slow = driven.open(user)
    driven.flushing = False
    for _ in range(400):
        driven.replica.announce(ReadHint(user, ReadState(channel, 0, 0, 0)), now=driven.now)
        driven.perform_actions()
    assert driven.hub.depth(user_ring(user)) == MAX_HINT_DEPTH
    for _ in range(200):
        driven.commit(channel)
    assert slow.closed is None
    driven.flushing = True
    driven.flush()
    assert slow.sequences == list(range(1, 201))


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"type":"newer"}', b'{"type":"report","replica":1}', b"\xff"])
def test_an_unreadable_hint_is_logged_once(driven: Driven, payload: bytes) -> None:
    for _ in range(3):
        driven.replica.broadcast_message(Topic.HINTS, payload, now=driven.now)
    driven.perform_actions()
    assert driven.lines == ["hints from another replica are malformed, or of a later release"]


def test_a_hint_for_a_channel_that_nobody_watches_does_nothing(driven: Driven) -> None:
    driven.replica.channel_message("c", b'{"type":"typing","channel_id":"c","user_id":"u"}', now=driven.now)
    driven.perform_actions()
    assert (driven.actions, driven.lines) == ([], [])

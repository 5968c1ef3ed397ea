"""Notification streams: what a user sees is followed while they have one, and they are told of it in order and once."""

from __future__ import annotations

from typing import Any

import pytest

from openguild_proto.bus.topics import Topic
from openguild_proto.effects import StorageUnavailable
from openguild_proto.effects.channels import DeleteChannel
from openguild_proto.effects.guilds import DeleteGuild
from openguild_proto.effects.replica import ReadHeads, ReadVisible
from openguild_proto.effects.roles import GrantChannelRole
from openguild_proto.hints import ReadHint
from openguild_proto.records import Author, ReadState
from openguild_proto.replica.notifications import user_ring
from tests.support.deeds import NOW
from tests.support.driven_replica import Driven, Socket


@pytest.fixture
def driven() -> Driven:
    return Driven()


def kinds(socket: Socket) -> list[Any]:
    """What came, as (kind, sequence of a message)."""
    return [(frame["kind"].removeprefix("channel_"), frame.get("sequence")) for frame in socket.frames]


def deliver_all(driven: Driven) -> None:
    """The control records of elsewhere that the replica has not applied."""
    for record in driven.elsewhere.records:
        driven.deliver_control(record)


def test_a_user_is_told_of_what_they_see_and_nobody_else_is(driven: Driven) -> None:
    alice, bob = driven.elsewhere.user(), driven.elsewhere.user()
    channel = driven.elsewhere.channel(alice)
    hers, his = driven.open(alice), driven.open(bob)
    driven.commit(channel)
    driven.deliver(driven.elsewhere.append(channel))
    assert kinds(hers) == [("message", 1), ("message", 2)]
    assert his.frames == []


def test_every_device_of_a_user_is_told_and_the_channels_are_held_once(driven: Driven) -> None:
    user = driven.elsewhere.user()
    channel = driven.elsewhere.channel(user)
    sockets = [driven.open(user) for _ in range(3)]
    assert driven.count(ReadVisible) == 1
    driven.commit(channel)
    assert [kinds(socket) for socket in sockets] == [[("message", 1)]] * 3
    for socket in sockets[:2]:
        driven.leave(socket)
    driven.commit(channel)
    assert kinds(sockets[2])[-1] == ("message", 2)
    driven.leave(sockets[2])
    assert driven.leftovers() == {}


@pytest.mark.parametrize("member_before", [False, True])
def test_a_channel_made_during_a_refresh_is_announced_once(driven: Driven, member_before: bool) -> None:
    """Its first message too, and behind it."""
    eve = driven.elsewhere.user()
    guild = driven.elsewhere.guild(eve) if member_before else None
    deliver_all(driven)
    socket = driven.open(eve)
    if guild is None:
        guild = driven.elsewhere.guild(eve)
    held = driven.hold(ReadVisible, early=True)
    refresh = driven.run(driven.replica.notifications.refresh(eve))
    channel = driven.elsewhere.channel(eve, guild)
    deliver_all(driven)
    driven.commit(channel)
    assert refresh == []
    held.release()
    driven.let_pass(ReadVisible)
    driven.sleep(1)
    assert kinds(socket) == [("created", None), ("message", 1)]
    assert driven.replica.notifications.watchers.channels_of(eve) == {channel}
    driven.commit(channel)
    assert kinds(socket)[2:] == [("message", 2)]
    driven.leave(socket)
    assert driven.leftovers() == {}


def test_a_channel_announced_while_a_refresh_opens_it_is_held_once(driven: Driven) -> None:
    eve = driven.elsewhere.user()
    guild = driven.elsewhere.guild(eve)
    deliver_all(driven)
    socket = driven.open(eve)
    channel = driven.elsewhere.channel(eve, guild)
    heads = driven.hold(ReadHeads)
    driven.run(driven.replica.notifications.refresh(eve))
    deliver_all(driven)
    assert len(heads.queries) == 2, "the refresh opens it, and it is followed as a new one"
    driven.let_pass(ReadHeads)
    feed = driven.replica.channels.get(channel)
    assert feed is not None
    assert feed.holders == 1
    driven.commit(channel)
    assert kinds(socket) == [("created", None), ("message", 1)]
    driven.leave(socket)
    assert driven.leftovers() == {}


def test_a_channel_that_is_gone_by_now_is_left_out(driven: Driven) -> None:
    user = driven.elsewhere.user()
    guild = driven.elsewhere.guild(user)
    kept, doomed = [driven.elsewhere.channel(user, guild) for _ in range(2)]
    held = driven.hold(ReadVisible, early=True)
    ticket = driven.prepare(driven.stream(user))
    driven.elsewhere.perform(DeleteChannel(author=Author(user), channel_id=doomed, now_ms=NOW))
    held.release()
    assert driven.prepared == {ticket: None}
    assert driven.replica.notifications.watchers.channels_of(user) == {kept}
    assert driven.wire == {kept}
    assert driven.replica.channels.get(doomed) is None


@pytest.mark.parametrize("kind", [ReadVisible, ReadHeads])
def test_a_channel_deleted_during_a_refresh_is_not_followed(driven: Driven, kind: type[Any]) -> None:
    """Its control record comes while what the user sees is being read, and none comes after that."""
    user = driven.elsewhere.user()
    guild = driven.elsewhere.guild(user)
    kept, doomed = [driven.elsewhere.channel(user, guild) for _ in range(2)]
    deliver_all(driven)
    held = driven.hold(kind, early=True)
    ticket = driven.prepare(driven.stream(user))
    driven.change(DeleteChannel(author=Author(user), channel_id=doomed, now_ms=NOW))
    held.release()
    assert driven.prepared == {ticket: None}
    assert driven.replica.notifications.watchers.channels_of(user) == {kept}
    assert driven.wire == {kept}


def test_a_guild_that_is_deleted_takes_feeds_and_pages_of_its_channels(driven: Driven) -> None:
    """Also the feed of somebody who has a role in a channel and is no member of its guild."""
    owner, bob = driven.elsewhere.user(), driven.elsewhere.user()
    guild = driven.elsewhere.guild(owner)
    channel = driven.elsewhere.channel(owner, guild)
    driven.elsewhere.perform(GrantChannelRole(channel_id=channel, user_id=bob, role="viewer", now_ms=NOW))
    deliver_all(driven)
    driven.elsewhere.append(channel)
    socket = driven.open(bob)
    reader = driven.open(owner, channel, guild_id=guild, since=0)
    assert reader.sequences == [1]
    assert driven.replica.streams.pages.nbytes > 0
    driven.elsewhere.perform(DeleteGuild(author=Author(owner), guild_id=guild))
    driven.run(driven.replica.controls.check_tail())
    driven.sleep(1)
    assert reader.closed is not None
    assert driven.replica.channels.get(channel) is None
    assert driven.replica.streams.pages.nbytes == 0
    assert driven.replica.notifications.watchers.channels_of(bob) == set()
    assert socket.closed is None


def test_two_refreshes_of_a_user_run_one_after_the_other(driven: Driven) -> None:
    user = driven.elsewhere.user()
    socket = driven.open(user)
    held = driven.hold(ReadVisible)
    ends = [driven.run(driven.replica.notifications.refresh(user)) for _ in range(3)]
    assert len(held.queries) == 1
    channel = driven.elsewhere.channel(user)
    while held.queries:
        held.release(1)
        assert len(held.queries) <= 1
    assert ends == [[None, None]] * 3
    assert driven.count(ReadVisible) == 4
    assert driven.replica.notifications.watchers.channels_of(user) == {channel}
    driven.leave(socket)
    assert driven.leftovers() == {}


def test_a_refresh_that_fails_lets_the_next_one_read(driven: Driven) -> None:
    user = driven.elsewhere.user()
    driven.open(user)
    held = driven.hold(ReadVisible)
    first, second = [driven.run(driven.replica.notifications.refresh(user)) for _ in range(2)]
    held.fail()
    assert isinstance(first[1], StorageUnavailable)
    assert second == []
    driven.let_pass(ReadVisible)
    assert second == [None, None]
    assert driven.run(driven.replica.notifications.refresh(user)) == [None, None]
    assert driven.replica.notifications._refreshing == {}


def test_a_user_who_leaves_during_a_refresh_leaves_nothing(driven: Driven) -> None:
    user = driven.elsewhere.user()
    driven.elsewhere.channel(user)
    socket = driven.open(user)
    driven.elsewhere.channel(user)
    heads = driven.hold(ReadHeads)
    refresh = driven.run(driven.replica.notifications.refresh(user))
    driven.leave(socket)
    heads.release()
    assert refresh == [None, None]
    assert driven.leftovers() == {}


def test_what_a_user_does_not_see_any_more_is_not_followed(driven: Driven) -> None:
    user, other = driven.elsewhere.user(), driven.elsewhere.user()
    guild = driven.elsewhere.guild(user)
    gone, kept = driven.elsewhere.channel(user, guild), driven.elsewhere.channel(user, guild)
    driven.open(user)
    driven.elsewhere.perform(GrantChannelRole(channel_id=kept, user_id=other, role="viewer", now_ms=NOW))
    driven.open(other)
    members = driven.elsewhere.tables._state.members[guild]
    del members[user]
    for channel in (gone, kept):
        driven.elsewhere.tables._state.channels[channel].roles.pop(user, None)
    assert driven.run(driven.replica.notifications.refresh(user)) == [None, None]
    assert driven.wire == {kept}
    assert driven.replica.notifications.watchers.of_guild(guild) == set()


def test_a_read_position_reaches_the_reader_s_other_devices(driven: Driven) -> None:
    user, other = driven.elsewhere.user(), driven.elsewhere.user()
    mine, others = driven.open(user), driven.open(other)
    driven.replica.announce(ReadHint(user, ReadState("channel", 3, 5, 2)), now=driven.now)
    driven.perform_actions()
    (hint,) = driven.broadcasts(Topic.HINTS)
    driven.replica.broadcast_message(Topic.HINTS, hint, now=driven.now)
    for topic in Topic:
        driven.replica.broadcast_message(topic, driven.replica.probe(topic), now=driven.now)
    driven.perform_actions()
    assert kinds(mine) == [("read", None)] * 2
    assert mine.frames[0]["event"]["last_read_sequence"] == 3
    assert others.frames == []


def test_many_are_told_one_at_a_time_and_in_the_order_of_the_messages(driven: Driven) -> None:
    """So that whoever carries it out can stop after each of them."""
    owner = driven.elsewhere.user()
    guild = driven.elsewhere.guild(owner)
    channel = driven.elsewhere.channel(owner, guild)
    sockets = []
    for _ in range(50):
        user = driven.elsewhere.user()
        driven.elsewhere.perform(GrantChannelRole(channel_id=channel, user_id=user, role="viewer", now_ms=NOW))
        sockets.append(driven.open(user))
    driven.flushing = False
    for _ in range(2):
        driven.replica.committed(driven.elsewhere.append(channel), "", now=driven.now)
    assert all(driven.hub.head(user_ring(socket.stream.user_id)) == 0 for socket in sockets if socket.stream)
    taken = 0
    while driven.replica.next_action() is not None:
        taken += 1
    assert taken == 2 + 2 * 50, "two messages for the other replicas, and two for each user"

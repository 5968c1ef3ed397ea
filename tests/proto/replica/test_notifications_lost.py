"""Whoever loses channels is told no more of them by a notification stream, however late that is read (PROTOCOL 8.8.6)."""

from __future__ import annotations

import pytest

from openguild_proto.effects.channels import FindChannelAccess, ReadEvents
from openguild_proto.effects.guilds import RemoveMember
from openguild_proto.effects.replica import ReadVisible
from openguild_proto.memory.state import Membership
from openguild_proto.records import Author
from tests.support.deeds import NOW
from tests.support.driven_replica import Driven


class Shared:
    """Bob is a member of alice's guild, with one channel, and has a channel of his own."""

    def __init__(self) -> None:
        self.driven = Driven()
        elsewhere = self.driven.elsewhere
        self.alice, self.bob = elsewhere.user(), elsewhere.user()
        self.guild = elsewhere.guild(self.alice)
        self.channel = elsewhere.channel(self.alice, self.guild)
        self.own = elsewhere.channel(self.bob)
        elsewhere.tables._state.members[self.guild][self.bob] = Membership("member", NOW)
        self.hear()

    def hear(self) -> None:
        """The control records of elsewhere that the replica has not applied."""
        for record in self.driven.elsewhere.records:
            self.driven.deliver_control(record)

    def remove_bob(self) -> None:
        effect = RemoveMember(author=Author(self.alice), guild_id=self.guild, user_id=self.bob, now_ms=NOW)
        self.driven.elsewhere.perform(effect)
        self.hear()


@pytest.fixture
def shared() -> Shared:
    return Shared()


def test_what_is_said_before_the_change_is_read_is_taken_back(shared: Shared) -> None:
    driven = shared.driven
    hers, his = driven.open(shared.alice), driven.open(shared.bob)
    held = driven.hold(ReadVisible)
    shared.remove_bob()
    driven.commit(shared.channel, "secret")
    driven.commit(shared.own, "kept")
    assert his.frames == []
    held.release()
    assert [frame["channel_id"] for frame in his.frames] == [shared.own]
    assert [frame["channel_id"] for frame in hers.frames] == [shared.channel]
    driven.commit(shared.channel, "secret")
    driven.commit(shared.own, "kept")
    assert [frame["channel_id"] for frame in his.frames] == [shared.own] * 2


def test_a_stream_that_opens_meanwhile_waits_for_the_change_to_be_read(shared: Shared) -> None:
    driven = shared.driven
    driven.open(shared.bob)
    held = driven.hold(ReadVisible)
    shared.remove_bob()
    stream = driven.stream(shared.bob)
    ticket = driven.prepare(stream)
    driven.commit(shared.channel, "secret")
    assert driven.prepared == {ticket - 1: None}
    held.release()
    his = driven.join(stream)
    driven.commit(shared.own, "kept")
    assert [frame["channel_id"] for frame in his.frames] == [shared.own]
    assert driven.count(ReadVisible) == 2


@pytest.mark.parametrize("is_answered", [True, False])
def test_streams_that_join_behind_the_change_get_nothing_before_it_is_read(shared: Shared, is_answered: bool) -> None:
    driven = shared.driven
    changes = driven.replica.changes
    streams = [driven.stream(shared.bob, shared.channel), driven.stream(shared.bob)]
    for stream in streams:
        driven.prepare(stream)
    held = {kind: driven.hold(kind) for kind in (FindChannelAccess, ReadVisible)}
    shared.remove_bob()
    reader, notified = (driven.join(stream, changes=changes) for stream in streams)
    driven.commit(shared.channel, "secret")
    driven.commit(shared.own, "kept")
    assert reader.frames == notified.frames == []
    for kind, waiting in held.items():
        driven.let_pass(kind) if is_answered else waiting.fail()
    assert reader.closed is not None
    assert (notified.closed is None) is is_answered
    assert reader.frames == []
    assert [frame["channel_id"] for frame in notified.frames] == ([shared.own] if is_answered else [])


def test_a_new_channel_of_which_the_user_is_being_told_is_lost_too(shared: Shared) -> None:
    driven = shared.driven
    other = driven.elsewhere.user()
    driven.elsewhere.tables._state.members[shared.guild][other] = Membership("member", NOW)
    his = driven.open(shared.bob)
    channel = driven.elsewhere.channel(shared.alice, shared.guild)
    driven.open(other, channel)
    driven.commit(channel, "before its record comes")
    events = driven.hold(ReadEvents)
    shared.hear()
    assert [frame["kind"] for frame in his.frames] == ["channel_created"]
    held = driven.hold(ReadVisible)
    shared.remove_bob()
    events.release()
    held.release()
    assert [frame["kind"] for frame in his.frames] == ["channel_created"]
    driven.commit(channel, "secret")
    assert len(his.frames) == 1

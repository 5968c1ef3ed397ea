"""A channel is announced to those who are members of its guild by then, also where both records come in one page."""

from __future__ import annotations

import pytest

from openguild_proto.effects import StorageUnavailable
from openguild_proto.effects.channels import DeleteChannel, ReadEvents
from openguild_proto.effects.guilds import AcceptInvite, InsertInvite
from openguild_proto.effects.replica import ReadVisible
from openguild_proto.limits import GAP_GRACE_SECS
from openguild_proto.records import Author
from openguild_proto.replica.notifications import RETRY_SECS
from tests.support.deeds import NOW
from tests.support.driven_replica import Driven, Socket


class Chat:
    """A guild that a user with a notification stream is invited to; the replica has heard of all that."""

    def __init__(self) -> None:
        self.driven = driven = Driven()
        self.owner, self.user = driven.elsewhere.user(), driven.elsewhere.user()
        self.guild = driven.elsewhere.guild(self.owner)
        invite = InsertInvite(
            author=Author(self.owner), code="code", guild_id=self.guild, max_uses=None, expires_at_ms=None, now_ms=NOW
        )
        driven.elsewhere.perform(invite)
        self.deliver_all()
        self.socket = driven.open(self.user)

    def join_guild(self) -> None:
        joined = AcceptInvite(author=Author(self.user), code="code", role="member", now_ms=NOW)
        assert self.driven.elsewhere.perform(joined) is not None

    def deliver_all(self) -> None:
        for record in self.driven.elsewhere.records:
            self.driven.deliver_control(record)

    def read_log(self) -> None:
        """The bus has lost all of it."""
        self.driven.run(self.driven.replica.controls.check_tail())
        self.driven.sleep(GAP_GRACE_SECS)


@pytest.fixture
def chat() -> Chat:
    return Chat()


def created(socket: Socket) -> list[str]:
    return [frame["event"]["channel_id"] for frame in socket.frames if frame["kind"] == "channel_created"]


def test_member_who_joined_in_the_same_page_of_the_log_is_told_once(chat: Chat) -> None:
    chat.join_guild()
    channel = chat.driven.elsewhere.channel(chat.owner, chat.guild)
    chat.read_log()
    assert created(chat.socket) == [channel]
    chat.driven.commit(channel)
    assert chat.socket.sequences == [1]
    chat.driven.leave(chat.socket)
    assert chat.driven.leftovers() == {}


def test_member_whose_refresh_waits_for_another_one_is_told_once(chat: Chat) -> None:
    held = chat.driven.hold(ReadVisible, early=True)
    chat.driven.run(chat.driven.replica.notifications.refresh(chat.user))  # reads before they are a member
    chat.join_guild()
    channel = chat.driven.elsewhere.channel(chat.owner, chat.guild)
    chat.deliver_all()
    chat.driven.run(chat.driven.replica.notifications.refresh(chat.user))
    while held.queries:
        held.release(1)
    assert created(chat.socket) == [channel]
    chat.driven.commit(channel)
    assert chat.socket.sequences == [1]
    chat.driven.leave(chat.socket)
    assert chat.driven.leftovers() == {}


def test_channel_made_before_the_user_joined_is_not_announced(chat: Chat) -> None:
    channel = chat.driven.elsewhere.channel(chat.owner, chat.guild)
    chat.join_guild()
    chat.read_log()
    assert created(chat.socket) == []
    chat.driven.commit(channel)
    assert chat.socket.sequences == [1]


def test_channel_made_and_deleted_in_the_same_page_leaves_nothing(chat: Chat) -> None:
    chat.join_guild()
    channel = chat.driven.elsewhere.channel(chat.owner, chat.guild)
    chat.driven.elsewhere.perform(DeleteChannel(author=Author(chat.owner), channel_id=channel, now_ms=NOW))
    chat.read_log()
    assert chat.driven.replica.channels.get(channel) is None
    chat.driven.leave(chat.socket)
    assert chat.driven.leftovers() == {}


def test_member_is_told_of_messages_that_came_before_the_channels_record(chat: Chat) -> None:
    """Another user, who opened a stream when the channel was there, has had them already."""
    driven = chat.driven
    chat.join_guild()
    chat.read_log()
    channel = driven.elsewhere.channel(chat.owner, chat.guild)
    early = driven.open(chat.owner)
    driven.commit(channel)
    driven.commit(channel)
    assert (early.sequences, chat.socket.sequences) == ([1, 2], [])
    chat.read_log()
    assert created(chat.socket) == [channel]
    driven.commit(channel)
    assert (early.sequences, chat.socket.sequences) == ([1, 2, 3], [1, 2, 3])
    driven.leave(early)
    driven.leave(chat.socket)
    assert driven.leftovers() == {}


def test_member_whose_refresh_saw_the_channel_first_is_told_of_its_first_messages(chat: Chat) -> None:
    """The record of the channel came late, or was lost: the store showed the channel and a message in it before."""
    driven = chat.driven
    held = driven.hold(ReadVisible)
    chat.join_guild()
    chat.deliver_all()
    channel = driven.elsewhere.channel(chat.owner, chat.guild)
    driven.elsewhere.append(channel)
    held.release(1)
    driven.let_pass(ReadVisible)
    chat.read_log()
    driven.commit(channel)
    assert created(chat.socket) == [channel]
    assert chat.socket.sequences == [1, 2]
    assert [frame["kind"] for frame in chat.socket.frames] == ["channel_created", *["channel_message"] * 2]
    driven.leave(chat.socket)
    assert driven.leftovers() == {}


def test_messages_during_the_reading_of_the_first_ones_come_in_order(chat: Chat) -> None:
    driven = chat.driven
    chat.join_guild()
    chat.read_log()
    channel = driven.elsewhere.channel(chat.owner, chat.guild)
    early = driven.open(chat.owner)
    driven.commit(channel)
    held = driven.hold(ReadEvents)
    chat.read_log()
    driven.commit(channel)
    assert (early.sequences, chat.socket.sequences) == ([1, 2], [])
    while held.queries:
        held.release(1)
    driven.commit(channel)
    assert chat.socket.sequences == [1, 2, 3]
    driven.leave(chat.socket)
    driven.leave(early)
    assert driven.leftovers() == {}


def test_reading_the_first_messages_ends_when_nobody_waits_for_them(chat: Chat) -> None:
    driven = chat.driven
    chat.join_guild()
    chat.read_log()
    channel = driven.elsewhere.channel(chat.owner, chat.guild)
    early = driven.open(chat.owner)
    driven.commit(channel)
    held = driven.hold(ReadEvents)
    chat.read_log()
    driven.leave(chat.socket)
    while held.queries:
        held.release(1)
    assert chat.socket.sequences == []
    driven.leave(early)
    assert driven.leftovers() == {}


@pytest.mark.parametrize("failure", [StorageUnavailable(), ValueError("ours")], ids=["outage", "defect"])
def test_first_messages_that_cannot_be_read_are_told_when_they_can(chat: Chat, failure: Exception) -> None:
    chat.join_guild()
    chat.deliver_all()
    channel = chat.driven.elsewhere.channel(chat.owner, chat.guild)
    reader = chat.driven.open(chat.owner, channel)
    chat.driven.commit(channel)
    chat.driven.failing[ReadEvents] = failure
    chat.deliver_all()
    del chat.driven.failing[ReadEvents]
    chat.driven.sleep(2 * RETRY_SECS)
    chat.driven.commit(channel)
    assert reader.sequences == [1, 2]
    assert (created(chat.socket), chat.socket.sequences) == ([channel], [1, 2])
    assert bool(chat.driven.defects) is isinstance(failure, ValueError)

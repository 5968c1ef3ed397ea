"""Streams before they are joined: prepared, refused, cancelled and abandoned, and what is left of them then."""

from __future__ import annotations

import pytest

from openguild_proto.effects import Effect, Overloaded, StorageUnavailable
from openguild_proto.effects.channels import DeleteChannel, ReadEvents
from openguild_proto.effects.replica import ReadHeads, ReadVisible, SubscribeChannels
from openguild_proto.errors import ErrorCode
from openguild_proto.records import Author, Head
from tests.support.driven_chat import DrivenChat


@pytest.fixture
def chat() -> DrivenChat:
    return DrivenChat()


@pytest.mark.parametrize("kind", [SubscribeChannels, ReadHeads, ReadEvents])
def test_a_cancelled_channel_stream_leaves_nothing(chat: DrivenChat, kind: type[Effect[object]]) -> None:
    chat.elsewhere.append(chat.channel)
    if kind is ReadEvents:
        chat.driven.answers[ReadHeads] = lambda effect: {
            chat.channel: Head(0)
        }  # a reading from a standby that is behind
    held = chat.driven.hold(kind, early=True)
    ticket = chat.driven.prepare(chat.driven.stream(chat.user, chat.channel))
    assert len(held.queries) == 1
    chat.driven.cancel(ticket)
    chat.driven.let_pass(kind)
    chat.driven.cancel(ticket)
    assert chat.driven.prepared == {}
    assert chat.driven.leftovers() == {}
    assert chat.driven.defects == []


@pytest.mark.parametrize("kind", [ReadVisible, SubscribeChannels, ReadHeads])
def test_a_cancelled_notification_stream_leaves_nothing(chat: DrivenChat, kind: type[Effect[object]]) -> None:
    held = chat.driven.hold(kind, early=True)
    ticket = chat.driven.prepare(chat.driven.stream(chat.user))
    assert len(held.queries) == 1
    chat.driven.cancel(ticket)
    chat.driven.let_pass(kind)
    assert chat.driven.prepared == {}
    assert chat.driven.leftovers() == {}
    assert chat.driven.defects == []


def test_a_notification_stream_cancelled_while_another_is_read_takes_nothing_from_it(chat: DrivenChat) -> None:
    held = chat.driven.hold(ReadVisible)
    first, second = [chat.driven.prepare(chat.driven.stream(chat.user)) for _ in range(2)]
    chat.driven.cancel(first)
    chat.driven.let_pass(ReadVisible)
    assert chat.driven.prepared == {second: None}
    assert held.queries == []
    socket = chat.driven.join(chat.driven.stream(chat.user))
    chat.driven.commit(chat.channel)
    assert [frame["kind"] for frame in socket.frames] == ["channel_message"]
    chat.driven.leave(socket)
    assert chat.driven.leftovers() == {}


@pytest.mark.parametrize("notifications", [False, True])
def test_a_stream_cancelled_before_its_outcome_is_taken_leaves_nothing(chat: DrivenChat, notifications: bool) -> None:
    """It is prepared, but whoever carries out the actions has not come to that."""
    chat.driven.open(chat.user, chat.channel)
    chat.driven.open(chat.user)
    held = dict(chat.driven.leftovers())
    replica, stream = chat.driven.replica, chat.driven.stream(chat.user, None if notifications else chat.channel)
    ticket = replica.prepare(stream, now=chat.driven.now)  # everything is there already
    replica.cancel(ticket, now=chat.driven.now)
    chat.driven.perform_actions()
    assert ticket not in chat.driven.prepared
    feed = replica.channels.get(chat.channel)
    assert feed is not None
    assert feed.holders == 2
    assert replica.notifications.watchers._sockets == {chat.user: 1}
    assert chat.driven.leftovers().keys() == held.keys()


def test_a_ticket_whose_outcome_was_taken_cancels_nothing(chat: DrivenChat) -> None:
    stream = chat.driven.stream(chat.user, chat.channel)
    ticket = chat.driven.prepare(stream)
    chat.driven.cancel(ticket)
    socket = chat.driven.join(stream)
    chat.driven.commit(chat.channel)
    assert socket.sequences == [1]
    refused = chat.driven.prepare(chat.driven.stream(chat.user, "gone"))
    chat.driven.cancel(refused)
    chat.driven.leave(socket)
    assert chat.driven.leftovers() == {}


@pytest.mark.parametrize(
    ("failure", "refusal"),
    [
        (StorageUnavailable(), ErrorCode.DATABASE_UNAVAILABLE),
        (Overloaded(), ErrorCode.OVERLOADED),
        (ValueError("ours"), ErrorCode.SERVER_ERROR),
    ],
)
@pytest.mark.parametrize("kind", [ReadHeads, ReadVisible])
def test_a_stream_that_cannot_be_prepared_is_refused(
    chat: DrivenChat, kind: type[Effect[object]], failure: Exception, refusal: ErrorCode
) -> None:
    chat.driven.failing[kind] = failure
    ticket = chat.driven.prepare(chat.driven.stream(chat.user, chat.channel if kind is ReadHeads else None))
    assert chat.driven.prepared == {ticket: refusal}
    assert len(chat.driven.defects) == isinstance(failure, ValueError)
    assert chat.driven.leftovers() == {}


def test_a_channel_deleted_since_the_check_of_access_is_not_found(chat: DrivenChat) -> None:
    stream = chat.driven.stream(chat.user, chat.channel)
    chat.elsewhere.perform(DeleteChannel(author=Author(chat.user), channel_id=chat.channel, now_ms=1))
    ticket = chat.driven.prepare(stream)
    assert chat.driven.prepared == {ticket: ErrorCode.NOT_FOUND}
    assert chat.driven.leftovers() == {}


def test_an_abandoned_stream_leaves_nothing(chat: DrivenChat) -> None:
    for stream in (chat.driven.stream(chat.user), chat.driven.stream(chat.user, chat.channel)):
        chat.driven.prepare(stream)
        chat.driven.replica.abandon(stream, now=chat.driven.now)
        chat.driven.perform_actions()
        assert chat.driven.leftovers() == {}


def test_a_stream_knows_of_what_was_stored_when_its_access_was_checked(chat: DrivenChat) -> None:
    """Also where a standby that is behind answers for the heads."""
    chat.driven.answers[ReadHeads] = lambda effect: dict.fromkeys(effect.channel_ids, Head(0))
    for _ in range(3):
        chat.elsewhere.append(chat.channel)
    socket = chat.driven.open(chat.user, chat.channel, since=2)
    assert socket.sequences == [3]


def test_a_log_that_went_back_since_the_check_of_access_is_asked_again(chat: DrivenChat) -> None:
    for _ in range(3):
        chat.elsewhere.append(chat.channel)
    stream = chat.driven.stream(chat.user, chat.channel, since=3)
    chat.elsewhere.lose_events(chat.channel, 1)
    ticket = chat.driven.prepare(stream)
    assert chat.driven.prepared == {ticket: ErrorCode.DATABASE_UNAVAILABLE}
    assert chat.driven.leftovers() == {}

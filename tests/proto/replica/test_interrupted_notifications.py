"""Notification streams when the logs begin anew: they have no place to resume from, so each is sent back or ends."""

from __future__ import annotations

import pytest

from openguild_proto.effects import StorageUnavailable
from openguild_proto.effects.accounts import FindSession
from openguild_proto.effects.guilds import RemoveMember
from openguild_proto.effects.replica import ReadVisible
from openguild_proto.limits import GAP_GRACE_SECS
from openguild_proto.memory.state import Membership
from openguild_proto.records import Author
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode
from tests.support.deeds import NOW, login
from tests.support.driven_replica import Driven, Socket

INTERRUPTED = CloseCode.SERVICE_RESTART, reasons.NOTIFICATIONS_INTERRUPTED


class Chat:
    """A user with a session that holds and one that has ended without the replica having heard of it."""

    def __init__(self) -> None:
        self.driven = driven = Driven()
        self.user = driven.elsewhere.user()
        self.channel = driven.elsewhere.channel(self.user)
        holds, replaced = login(self.user, 1, "phone"), login(self.user, 2, "laptop")
        self.session, self.ended = holds.session_id, replaced.session_id
        for effect in (holds, replaced):
            driven.elsewhere.perform(effect)
        self.deliver_all()
        driven.elsewhere.perform(login(self.user, 3, "laptop"))

    def deliver_all(self) -> None:
        for record in self.driven.elsewhere.records:
            self.driven.deliver_control(record)

    def begin_anew(self) -> None:
        self.driven.run(self.driven.replica.controls.begin_anew())


@pytest.fixture
def chat() -> Chat:
    return Chat()


def closed(socket: Socket) -> tuple[int, str]:
    assert socket.closed is not None
    return socket.closed.code, socket.closed.reason


def test_streams_of_sessions_that_hold_are_interrupted_and_the_others_end(chat: Chat) -> None:
    holds = chat.driven.open(chat.user, session_id=chat.session)
    ended = chat.driven.open(chat.user, session_id=chat.ended)
    reader = chat.driven.open(chat.user, chat.channel, session_id=chat.session)
    chat.begin_anew()
    assert closed(holds) == INTERRUPTED
    assert closed(ended) == (CloseCode.TOKEN_ENDED, reasons.ACCESS_ENDED)
    assert reader.closed is None
    chat.driven.leave(reader)
    assert chat.driven.leftovers() == {}


def test_records_that_were_missed_and_are_not_kept_interrupt_too(chat: Chat) -> None:
    holds = chat.driven.open(chat.user, session_id=chat.session)
    chat.driven.elsewhere.channel(chat.user)
    chat.driven.elsewhere.prune_controls(chat.driven.elsewhere.tables.control_head())
    chat.driven.run(chat.driven.replica.controls.check_tail())
    chat.driven.sleep(GAP_GRACE_SECS)
    assert closed(holds) == INTERRUPTED


@pytest.mark.parametrize("session", ["session", "ended"])
def test_stream_prepared_before_and_joined_after_is_looked_at_too(chat: Chat, session: str) -> None:
    changes = chat.driven.replica.changes
    stream = chat.driven.stream(chat.user, session_id=getattr(chat, session))
    chat.driven.prepare(stream)
    chat.begin_anew()
    socket = chat.driven.join(stream, changes=changes)
    assert closed(socket) == (INTERRUPTED if session == "session" else (CloseCode.TOKEN_ENDED, reasons.ACCESS_ENDED))
    assert chat.driven.leftovers() == {}


def test_stream_opened_during_the_recheck_reads_anew_what_the_user_sees(chat: Chat) -> None:
    """Another stream of the user is still to be looked at: what was read for it is of the log before."""
    driven, elsewhere = chat.driven, chat.driven.elsewhere
    owner = elsewhere.user()
    guild = elsewhere.guild(owner)
    regained = elsewhere.channel(owner, guild)
    chat.deliver_all()
    before = driven.open(chat.user, session_id=chat.session)
    elsewhere.tables._state.members[guild][chat.user] = Membership("member", NOW)  # of the restored database: no record
    held = driven.hold(FindSession)
    chat.begin_anew()
    after = driven.open(chat.user, session_id=chat.session)
    driven.commit(regained)
    assert after.sequences == [1]
    driven.let_pass(FindSession)
    assert held.queries == []
    assert closed(before) == INTERRUPTED
    assert after.closed is None
    driven.commit(regained)
    assert after.sequences == [1, 2]


def test_reading_begun_before_is_not_taken_for_what_the_user_sees_after(chat: Chat) -> None:
    driven, elsewhere = chat.driven, chat.driven.elsewhere
    owner = elsewhere.user()
    guild = elsewhere.guild(owner)
    lost = elsewhere.channel(owner, guild)
    elsewhere.tables._state.members[guild][chat.user] = Membership("member", NOW)
    chat.deliver_all()
    held = driven.hold(ReadVisible, early=True)
    ticket = driven.prepare(driven.stream(chat.user, session_id=chat.session))
    elsewhere.perform(RemoveMember(author=Author(owner), guild_id=guild, user_id=chat.user, now_ms=NOW))
    chat.begin_anew()
    held.release(1)
    assert driven.prepared == {}
    driven.let_pass(ReadVisible)
    assert driven.prepared == {ticket: None}
    assert lost not in driven.replica.notifications.watchers.channels_of(chat.user)


def test_stream_whose_session_cannot_be_asked_for_is_sent_back(chat: Chat) -> None:
    socket = chat.driven.open(chat.user, session_id=chat.session)
    chat.driven.failing[FindSession] = StorageUnavailable()
    chat.begin_anew()
    assert closed(socket) == (CloseCode.SERVICE_RESTART, reasons.ACCESS_UNKNOWN)

"""Control records: applied in order and once, read where the bus lost them, and what they do to streams."""

from __future__ import annotations

from typing import NoReturn

import msgspec
import pytest

from openguild_proto.bus.topics import Topic
from openguild_proto.effects import StorageUnavailable
from openguild_proto.effects.accounts import FindSession, RevokeDevice
from openguild_proto.effects.channels import DeleteChannel, FindChannelAccess
from openguild_proto.effects.guilds import DeleteGuild, RemoveMember
from openguild_proto.effects.replica import ReadControlHead, ReadControls, ReadVisible
from openguild_proto.effects.roles import GrantChannelRole
from openguild_proto.limits import GAP_GRACE_SECS, PAGE_RECORDS
from openguild_proto.memory.state import Membership
from openguild_proto.records import Author, ControlKind, ControlRecord
from openguild_proto.replica import controls
from openguild_proto.replica.streams import Streams
from openguild_proto.schemas.payloads import decode_control, encode_control
from openguild_proto.sessions.tokens import Claims
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode
from tests.support.deeds import NOW, login
from tests.support.driven_replica import Driven, Socket


class Chat:
    """A replica that has heard all of the control log so far; a user, their guild and channel."""

    def __init__(self) -> None:
        self.driven = Driven()
        self.elsewhere = self.driven.elsewhere
        self.user = self.elsewhere.user()
        self.guild = self.elsewhere.guild(self.user)
        self.channel = self.elsewhere.channel(self.user, self.guild)
        self.catch_up()

    def catch_up(self) -> None:
        for record in self.elsewhere.records:
            self.driven.deliver_control(record)

    @property
    def head(self) -> int:
        return self.driven.replica.controls.follower.head

    def sessions(self, count: int = 1) -> list[str]:
        """New sessions of the user, each on a device of its own, which the replica has heard of."""
        logins = [login(self.user, number, f"device {number}") for number in range(count)]
        for effect in logins:
            self.elsewhere.perform(effect)
        self.catch_up()
        return [effect.session_id for effect in logins]

    def check(self) -> list[object]:
        ended = self.driven.run(self.driven.replica.controls.check_tail())
        self.driven.sleep(GAP_GRACE_SECS)
        return ended

    def changes(self, count: int) -> None:
        """Change something of no consequence elsewhere."""
        other = self.elsewhere.user()
        for number in range(count):
            role = ("viewer", "member")[number % 2]
            self.elsewhere.perform(GrantChannelRole(channel_id=self.channel, user_id=other, role=role, now_ms=NOW))


@pytest.fixture
def chat() -> Chat:
    return Chat()


def closed(socket: Socket) -> tuple[int, str]:
    assert socket.closed is not None
    return socket.closed.code, socket.closed.reason


# --- arrivals ------------------------------------------------------------------------------------


def test_what_was_stored_here_is_told_to_the_others_and_applied() -> None:
    chat = Chat()
    (session,) = chat.sessions()
    socket = chat.driven.open(chat.user, session_id=session)
    chat.driven.change(login(chat.user, 9, "device 0"))  # on the same device: its former session ends
    assert closed(socket) == (CloseCode.TOKEN_ENDED, reasons.SESSION_REVOKED)
    assert chat.driven.tokens.is_revoked(session)
    record = decode_control(chat.driven.controls_published[-1])
    assert isinstance(record, ControlRecord)
    assert record.kind is ControlKind.SESSIONS_REVOKED


def test_a_record_behind_a_lost_one_waits_for_the_grace_only(chat: Chat) -> None:
    socket = chat.driven.open(chat.user)
    chat.elsewhere.guild(chat.user)
    channel = chat.elsewhere.channel(chat.user)
    chat.driven.deliver_control(chat.elsewhere.records[-1])
    assert channel not in chat.driven.replica.notifications.watchers.channels_of(chat.user)
    chat.driven.sleep(GAP_GRACE_SECS)
    assert channel in chat.driven.replica.notifications.watchers.channels_of(chat.user)
    chat.driven.commit(channel)
    assert [(frame["kind"], frame["channel_id"]) for frame in socket.frames] == [
        ("channel_created", channel),
        ("channel_message", channel),
    ]


def test_a_revocation_does_not_wait_for_what_is_missing_before_it(chat: Chat) -> None:
    (session,) = chat.sessions()
    socket = chat.driven.open(chat.user, session_id=session)
    reads = chat.driven.hold(ReadControls)
    chat.changes(1)
    chat.elsewhere.perform(login(chat.user, 9, "device 0"))
    changes = chat.driven.replica.changes
    chat.driven.deliver_control(chat.elsewhere.records[-1])
    assert closed(socket) == (CloseCode.TOKEN_ENDED, reasons.SESSION_REVOKED)
    assert chat.driven.replica.changes > changes, "a stream that is being opened is looked at again"
    chat.driven.sleep(GAP_GRACE_SECS)
    reads.release()
    assert chat.head == chat.elsewhere.tables.control_head()
    assert chat.driven.defects == []


def test_a_last_record_that_is_lost_is_found_by_the_tail_check(chat: Chat) -> None:
    socket = chat.driven.open(chat.user, chat.channel)
    chat.elsewhere.perform(DeleteChannel(author=Author(chat.user), channel_id=chat.channel, now_ms=NOW))
    chat.driven.sleep(10)
    assert socket.closed is None
    chat.check()
    assert closed(socket) == (CloseCode.CHANNEL_DELETED, reasons.CHANNEL_DELETED)


def test_a_long_hole_is_read_page_by_page(chat: Chat) -> None:
    chat.changes(2 * PAGE_RECORDS + 5)
    chat.driven.deliver_control(chat.elsewhere.records[-1])
    chat.driven.sleep(GAP_GRACE_SECS)
    assert chat.head == chat.elsewhere.tables.control_head()
    assert chat.driven.count(ReadControls) == 3


def test_repeats_do_nothing(chat: Chat) -> None:
    changes = chat.driven.replica.changes
    chat.catch_up()
    assert chat.driven.replica.changes == changes
    assert chat.driven.count(ReadControls) == 0


def test_before_the_start_nothing_is_applied() -> None:
    driven = Driven(started=False)
    record = ControlRecord(sequence=1, kind=ControlKind.SESSIONS_REVOKED, user_id="u", session_ids=("s",))
    driven.deliver_control(record)
    assert not driven.tokens.is_revoked("s")
    driven.failing[ReadControlHead] = StorageUnavailable()
    _, error = driven.run(driven.replica.start())
    assert isinstance(error, StorageUnavailable)
    driven.failing.clear()
    driven.elsewhere.channel(driven.elsewhere.user())
    assert driven.run(driven.replica.start()) == [None, None]
    assert driven.replica.controls.follower.head == driven.elsewhere.tables.control_head()


def test_a_malformed_message_is_a_line_in_the_log(chat: Chat) -> None:
    for payload in (b"", b"{}", b'{"type":"newer"}', b'{"type":"control","record":{"sequence":-1}}', b"\xff"):
        chat.driven.replica.broadcast_message(Topic.CONTROL, payload, now=chat.driven.now)
    chat.driven.perform_actions()
    assert chat.driven.lines == ["a control message from another replica is malformed"] * 5
    assert chat.driven.defects == []


def test_a_kind_of_a_newer_release_keeps_its_place_and_is_mentioned_once(chat: Chat) -> None:
    for _ in range(2):
        payload = msgspec.json.decode(encode_control(ControlRecord(chat.head + 1, ControlKind.ACCESS_CHANGED)))
        payload["record"]["kind"] = "of a newer release"
        chat.driven.replica.broadcast_message(Topic.CONTROL, msgspec.json.encode(payload), now=chat.driven.now)
        chat.driven.perform_actions()
    assert chat.head == chat.elsewhere.tables.control_head() + 2
    assert chat.driven.lines == ["a newer release writes control records that this release does not know"]


def test_a_record_that_cannot_be_applied_does_not_stop_those_behind_it(chat: Chat) -> None:
    (session,) = chat.sessions()
    socket = chat.driven.open(chat.user, chat.channel, session_id=session)
    broken = ControlRecord(chat.head + 1, ControlKind.GUILD_DELETED, guild_id="g", body="no JSON")
    chat.driven.deliver_control(broken)
    assert len(chat.driven.defects) == 1
    assert chat.driven.lines[-1] == "a control record could not be applied: every stream is checked again"
    chat.driven.deliver_control(
        ControlRecord(chat.head + 1, ControlKind.CHANNEL_DELETED, guild_id=chat.guild, channel_id=chat.channel)
    )
    assert closed(socket) == (CloseCode.CHANNEL_DELETED, reasons.CHANNEL_DELETED)


# --- what was missed -----------------------------------------------------------------------------


def test_records_that_are_no_longer_in_the_log_have_everything_checked_again(chat: Chat) -> None:
    session, ended = chat.sessions(2)
    stays = chat.driven.open(chat.user, chat.channel, session_id=session)
    goes = chat.driven.open(chat.user, session_id=ended)
    chat.elsewhere.perform(login(chat.user, 9, "device 1"))
    chat.changes(3)
    chat.elsewhere.prune_controls(chat.elsewhere.tables.control_head() - 1)
    changes = chat.driven.replica.changes
    chat.check()
    assert closed(goes)[0] == CloseCode.TOKEN_ENDED
    assert stays.closed is None
    assert chat.head == chat.elsewhere.tables.control_head()
    assert chat.driven.replica.changes > changes
    assert chat.driven.lines == [
        "control records were missed and are no longer in the log: every stream is checked again"
    ]


def test_every_token_is_confirmed_again_after_records_were_missed(chat: Chat) -> None:
    tokens, wall_ms = chat.driven.tokens, 1_700_000_000_000
    token = tokens.issue(Claims("session", chat.user, "name", wall_ms * 1000, (wall_ms + 60_000) * 1000))
    tokens.verify(token, wall_ms)
    tokens.confirm(token)
    assert tokens.is_confirmed(token)
    chat.driven.run(chat.driven.replica.controls.begin_anew())
    assert not tokens.is_confirmed(token)


def test_a_log_that_is_empty_but_further_has_everything_checked_again(chat: Chat) -> None:
    chat.changes(3)
    head = chat.elsewhere.tables.control_head()
    chat.elsewhere.prune_controls(head)
    chat.check()
    assert chat.head == head
    assert len(chat.driven.lines) == 1
    chat.changes(1)
    chat.catch_up()
    assert chat.head == head + 1


def test_a_stale_reading_is_not_taken_for_records_that_are_gone(chat: Chat) -> None:
    """A standby that is behind answers: the record that was heard is not there yet, nor is the one before it."""
    (session,) = chat.sessions()
    socket = chat.driven.open(chat.user, chat.channel, session_id=session)
    head = chat.head
    chat.elsewhere.perform(DeleteChannel(author=Author(chat.user), channel_id=chat.channel, now_ms=NOW))
    chat.elsewhere.channel(chat.user, chat.guild)
    chat.driven.answers[ReadControls] = lambda effect: ()
    chat.driven.answers[ReadControlHead] = lambda effect: head
    chat.driven.deliver_control(chat.elsewhere.records[-1])
    chat.driven.sleep(1)
    assert chat.head == head
    assert chat.driven.lines == []
    chat.driven.answers.clear()
    chat.check()
    assert chat.head == chat.elsewhere.tables.control_head()
    assert closed(socket) == (CloseCode.CHANNEL_DELETED, reasons.CHANNEL_DELETED)


@pytest.mark.parametrize("stale", [1, 2])
def test_a_log_that_went_back_is_believed_at_the_second_reading(chat: Chat, stale: int) -> None:
    (session,) = chat.sessions()
    socket = chat.driven.open(chat.user, chat.channel, session_id="of a login that is lost")
    stays = chat.driven.open(chat.user, chat.channel, session_id=session)
    head = chat.head
    readings = [head - 2] * stale + [head] * 3
    chat.driven.answers[ReadControlHead] = lambda effect: readings.pop(0)
    chat.check()
    if stale == 1:
        assert (socket.closed, chat.driven.lines, chat.head) == (None, [], head)
        return
    assert closed(socket)[0] == CloseCode.TOKEN_ENDED
    assert stays.closed is None
    assert chat.head == head - 2
    assert chat.driven.lines == ["the control log went back: every stream is checked again"]


def test_a_check_that_cannot_ask_is_taken_up_by_the_next_one(chat: Chat) -> None:
    chat.changes(1)
    chat.driven.failing[ReadControlHead] = StorageUnavailable()
    assert isinstance(chat.check()[1], StorageUnavailable)
    chat.driven.failing.clear()
    chat.driven.failing[ReadControls] = StorageUnavailable()
    chat.check()
    chat.driven.failing.clear()
    chat.check()
    assert chat.head == chat.elsewhere.tables.control_head()


# --- checking again ------------------------------------------------------------------------------


def test_a_member_who_is_removed_loses_the_streams_of_that_guild_only(chat: Chat) -> None:
    bob = chat.elsewhere.user()
    other = chat.elsewhere.channel(bob)
    chat.elsewhere.tables._state.members[chat.guild][bob] = Membership("member", NOW)
    chat.catch_up()
    reader, kept, notified = (chat.driven.open(bob, channel) for channel in (chat.channel, other, None))
    assert chat.driven.replica.notifications.watchers.channels_of(bob) == {chat.channel, other}
    chat.elsewhere.perform(RemoveMember(author=Author(chat.user), guild_id=chat.guild, user_id=bob, now_ms=NOW))
    chat.catch_up()
    assert closed(reader) == (CloseCode.MEMBERSHIP_LOST, reasons.ACCESS_ENDED)
    assert kept.closed is notified.closed is None
    assert chat.driven.replica.notifications.watchers.channels_of(bob) == {other}


def test_revoked_sessions_are_looked_for_among_their_users_sockets_only(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = [chat.driven.open(chat.user, session_id=session) for session in chat.sessions(2)]
    other = chat.driven.open(chat.elsewhere.user())

    def walk(streams: Streams) -> list[Socket]:
        raise AssertionError("it walks over every socket")

    monkeypatch.setattr(Streams, "sockets", walk)
    chat.driven.change(login(chat.user, 9, "device 0"))
    assert [socket.closed is not None for socket in (*mine, other)] == [True, False, False]


def test_a_stream_whose_access_cannot_be_checked_again_ends(chat: Chat) -> None:
    reader, notified = chat.driven.open(chat.user, chat.channel), chat.driven.open(chat.user)
    chat.driven.failing[FindChannelAccess] = StorageUnavailable()
    chat.driven.failing[ReadVisible] = StorageUnavailable()
    chat.elsewhere.perform(GrantChannelRole(channel_id=chat.channel, user_id=chat.user, role="member", now_ms=NOW))
    chat.catch_up()
    assert closed(reader) == (CloseCode.SERVICE_RESTART, reasons.ACCESS_UNKNOWN)
    assert closed(notified) == (CloseCode.SERVICE_RESTART, reasons.NOTIFICATIONS_INTERRUPTED)
    assert chat.driven.defects == []
    assert chat.driven.leftovers() == {}


def test_a_socket_that_left_while_it_was_checked_is_not_closed(chat: Chat) -> None:
    socket = chat.driven.open(chat.user, chat.channel)
    held = chat.driven.hold(FindChannelAccess)
    chat.elsewhere.perform(GrantChannelRole(channel_id=chat.channel, user_id=chat.user, role="member", now_ms=NOW))
    chat.catch_up()
    assert len(held.queries) == 1
    chat.driven.leave(socket)
    chat.driven.answers[FindChannelAccess] = lambda effect: None
    held.release()
    assert socket.closed is None


def test_everything_is_checked_one_after_the_other(chat: Chat) -> None:
    """There may be thousands, and they are not to crowd out what is asked meanwhile."""
    sockets = [chat.driven.open(chat.user, chat.channel, session_id="lost") for _ in range(5)]
    held = chat.driven.hold(FindSession)
    chat.driven.run(chat.driven.replica.controls.begin_anew())
    ended = []
    while held.queries:
        assert len(held.queries) == 1
        held.release()
        ended.append(sum(socket.closed is not None for socket in sockets))
    assert ended == [1, 2, 3, 4, 5]


def test_a_record_that_cannot_be_applied_ends_what_it_would_have_ended(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(record: ControlRecord) -> NoReturn:
        raise ValueError("ours")

    sockets = [chat.driven.open(chat.user, chat.channel, session_id=session_id) for session_id in chat.sessions(2)]
    monkeypatch.setattr(controls, "consequences", fails)
    chat.elsewhere.perform(RevokeDevice(author=Author(chat.user), device_id="device 0", now_ms=NOW))
    chat.catch_up()
    assert [socket.closed is not None for socket in sockets] == [True, False]


def test_a_defect_in_one_check_does_not_spare_the_others(chat: Chat) -> None:
    """PROTOCOL 8.8.4: nor the one that it was in, whose access cannot be checked."""
    sockets = [chat.driven.open(chat.user, chat.channel, session_id="lost") for _ in range(3)]
    held = chat.driven.hold(FindSession)
    chat.driven.run(chat.driven.replica.controls.begin_anew())
    held.fail(ValueError("ours"))
    chat.driven.let_pass(FindSession)
    assert [closed(socket)[0] for socket in sockets] == [1012, 4401, 4401]
    assert len(chat.driven.defects) == 1


def test_a_defect_in_a_refresh_does_not_spare_the_user_s_streams(chat: Chat) -> None:
    reader, notified = chat.driven.open(chat.user, chat.channel), chat.driven.open(chat.user)
    chat.driven.failing[ReadVisible] = ValueError("ours")
    chat.driven.answers[FindChannelAccess] = lambda effect: None
    chat.elsewhere.perform(GrantChannelRole(channel_id=chat.channel, user_id=chat.user, role="member", now_ms=NOW))
    chat.catch_up()
    assert closed(reader)[0] == CloseCode.CHANNEL_DELETED
    assert closed(notified) == (CloseCode.SERVICE_RESTART, reasons.NOTIFICATIONS_INTERRUPTED)
    assert len(chat.driven.defects) == 1


def test_a_deleted_guild_is_forgotten_one_channel_after_the_other(chat: Chat) -> None:
    channels = [chat.channel, *(chat.elsewhere.channel(chat.user, chat.guild) for _ in range(9))]
    chat.catch_up()
    chat.driven.open(chat.user)
    chat.elsewhere.perform(DeleteGuild(author=Author(chat.user), guild_id=chat.guild))
    replica, watchers = chat.driven.replica, chat.driven.replica.notifications.watchers
    replica.broadcast_message(Topic.CONTROL, encode_control(chat.elsewhere.records[-1]), now=chat.driven.now)
    left = [len(channels)]
    while replica.next_action() is not None:
        left.append(len(watchers.channels_of(chat.user)))
    assert [count for count, before in zip(left[1:], left, strict=False) if count != before] == list(range(9, -1, -1))

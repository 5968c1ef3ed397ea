"""Streams: joined, replayed and ended."""

from __future__ import annotations

import pytest

from openguild_proto.canonical.keys import KeyRing
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects.channels import DeleteChannel, ReadEvents
from openguild_proto.fanout.hub import Lagged, SubscriberState
from openguild_proto.limits import FEW_AT_ONCE
from openguild_proto.records import Author
from openguild_proto.replica.actions import Close, Replay
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode
from tests.support.deeds import login
from tests.support.driven_chat import DrivenChat
from tests.support.driven_replica import Socket


@pytest.fixture
def chat() -> DrivenChat:
    return DrivenChat()


# --- joining -------------------------------------------------------------------------------------


@pytest.mark.parametrize("since", [None, 0, 3, 5])
def test_a_stream_begins_behind_its_place_and_misses_nothing(since: int | None) -> None:
    chat = DrivenChat(replay_window=2)
    for _ in range(5):
        chat.elsewhere.append(chat.channel)
    socket = chat.driven.open(chat.user, chat.channel, since=since)
    chat.driven.commit(chat.channel)
    begin = 3 if since is None else since
    assert socket.sequences == list(range(begin + 1, 7))


def test_what_comes_between_prepared_and_joined_is_not_missed(chat: DrivenChat) -> None:
    stream = chat.driven.stream(chat.user, chat.channel, since=0)
    chat.driven.prepare(stream)
    for _ in range(3):
        chat.driven.commit(chat.channel)
    socket = chat.driven.join(stream)
    chat.driven.commit(chat.channel)
    assert socket.sequences == [1, 2, 3, 4]
    assert chat.driven.count(ReadEvents) == 1


def test_a_log_that_went_back_before_its_socket_joined_ends_the_stream(chat: DrivenChat) -> None:
    for _ in range(3):
        chat.driven.commit(chat.channel)
    stream = chat.driven.stream(chat.user, chat.channel, since=3)
    changes = chat.driven.replica.changes
    chat.driven.prepare(stream)
    chat.elsewhere.lose_events(chat.channel, 1)
    chat.elsewhere.renew_epochs()
    chat.driven.run(chat.driven.replica.channels.restart_all())
    socket = chat.driven.join(stream, changes=changes)
    assert socket.closed is not None
    assert (socket.closed.code, socket.closed.reason) == (CloseCode.SERVICE_RESTART, reasons.LOG_WENT_BACK)
    assert chat.driven.replica.counters.subscribers == 0
    assert chat.driven.leftovers() == {}


def test_a_session_revoked_while_its_stream_was_opened_ends_it(chat: DrivenChat) -> None:
    first = login(chat.user, 1)
    chat.driven.change(first)
    for channel in (chat.channel, None):
        stream = chat.driven.stream(chat.user, channel, session_id=first.session_id)
        changes = chat.driven.replica.changes
        chat.driven.prepare(stream)
        chat.driven.change(login(chat.user, 2))  # on the same device: the other session is over
        socket = chat.driven.join(stream, changes=changes if channel else changes - 1)
        assert socket.closed is not None
        assert (socket.closed.code, socket.closed.reason) == (CloseCode.TOKEN_ENDED, reasons.SESSION_REVOKED)


def test_a_channel_deleted_while_its_stream_was_opened_ends_it(chat: DrivenChat) -> None:
    stream = chat.driven.stream(chat.user, chat.channel)
    changes = chat.driven.replica.changes
    chat.driven.prepare(stream)
    chat.driven.change(DeleteChannel(author=Author(chat.user), channel_id=chat.channel, now_ms=1))
    socket = chat.driven.join(stream, changes=changes)
    assert socket.closed is not None
    assert socket.closed.code == CloseCode.CHANNEL_DELETED
    assert chat.driven.leftovers() == {}


def test_a_join_after_changes_that_do_not_concern_it_goes_on(chat: DrivenChat) -> None:
    for channel in (chat.channel, None):
        stream = chat.driven.stream(chat.user, channel)
        changes = chat.driven.replica.changes
        chat.driven.prepare(stream)
        chat.driven.change(login(chat.elsewhere.user(), 1))
        chat.driven.replica.streams.changed()
        assert chat.driven.join(stream, changes=changes).closed is None


def test_streams_end_with_the_key_that_vouched_for_their_token(chat: DrivenChat) -> None:
    before, changes = chat.driven.open(chat.user), chat.driven.replica.changes
    old, new = chat.driven.keys.signing.public, SigningKey(bytes([1]) * 32)
    stream = chat.driven.stream(chat.user, verified_by=old)
    chat.driven.prepare(stream)
    for ring, stays in ((KeyRing(new, fallback=(old,)), True), (KeyRing(new), False)):
        chat.driven.tokens.replace_keys(ring)
        chat.driven.replica.keys_replaced(chat.driven.tokens.trusts, now=chat.driven.now)
        chat.driven.perform_actions()
        assert (before.closed is None) is stays, "the fallback key still vouches"
    late = chat.driven.join(stream, changes=changes)
    for socket in (before, late):
        assert socket.closed is not None
        assert (socket.closed.code, socket.closed.reason) == (CloseCode.TOKEN_ENDED, reasons.KEY_WITHDRAWN)


def test_leaving_twice_is_leaving_once(chat: DrivenChat) -> None:
    socket, other = [chat.driven.open(chat.user, chat.channel) for _ in range(2)]
    for _ in range(2):
        chat.driven.leave(socket)
    assert chat.driven.replica.counters.subscribers == 1
    chat.driven.commit(chat.channel)
    assert (socket.sequences, other.sequences) == ([], [1])
    chat.driven.leave(other)
    assert chat.driven.leftovers() == {}


# --- replays -------------------------------------------------------------------------------------


def test_a_replay_and_what_comes_meanwhile_are_given_in_order_and_once(chat: DrivenChat) -> None:
    for _ in range(450):
        chat.elsewhere.append(chat.channel)
    reads = chat.driven.hold(ReadEvents)
    socket = chat.driven.open(chat.user, chat.channel, since=0)
    while reads.queries:
        chat.driven.commit(chat.channel)
        reads.release(1)
    chat.driven.commit(chat.channel)
    assert socket.sequences == list(range(1, len(socket.sequences) + 1))
    assert len(socket.sequences) > 450
    assert chat.driven.replica.counters.replayed == 450


def test_a_storm_of_replays_reads_each_page_once(chat: DrivenChat) -> None:
    for _ in range(300):
        chat.elsewhere.append(chat.channel)
    reads = chat.driven.hold(ReadEvents)
    sockets = [chat.driven.open(chat.user, chat.channel, since=0) for _ in range(20)]
    while reads.queries:
        reads.release()
    assert chat.driven.count(ReadEvents) == 2
    assert all(socket.sequences == list(range(1, 301)) for socket in sockets)


def test_a_log_that_cannot_be_read_ends_the_replay_with_its_place(chat: DrivenChat) -> None:
    for _ in range(300):
        chat.elsewhere.append(chat.channel)
    socket = Socket(away=True)
    chat.driven.open(chat.user, chat.channel, socket=socket, since=0)
    socket.away = False
    reads = chat.driven.hold(ReadEvents)
    chat.driven.read_pages(socket)
    reads.release(1)
    assert len(socket.sequences) == 200
    reads.fail()
    assert socket.closed is not None
    assert (socket.closed.code, socket.closed.reason) == (CloseCode.INTERNAL_ERROR, reasons.log_unreadable(200))
    assert chat.driven.leftovers() == {}


@pytest.mark.parametrize("fails", [False, True])
def test_a_socket_that_leaves_while_it_waits_for_a_page_leaves_nothing(chat: DrivenChat, fails: bool) -> None:
    chat.elsewhere.append(chat.channel)
    reads = chat.driven.hold(ReadEvents)
    socket = chat.driven.open(chat.user, chat.channel, since=0)
    chat.driven.leave(socket)
    assert [action.socket for action in chat.driven.taken(Replay)] == [socket, socket], "it hears of its end"
    (reads.fail if fails else reads.release)()
    assert socket.frames == []
    assert chat.driven.leftovers() == {}


def test_a_channel_restarted_during_a_replay_gives_nothing_of_the_old_log(chat: DrivenChat) -> None:
    for _ in range(3):
        chat.driven.commit(chat.channel)
    reads = chat.driven.hold(ReadEvents, early=True)
    socket = chat.driven.open(chat.user, chat.channel, since=0)
    chat.elsewhere.lose_events(chat.channel, 1)
    chat.elsewhere.renew_epochs()
    chat.driven.run(chat.driven.replica.channels.restart_all())
    reads.release()
    assert socket.frames == []
    assert socket.closed is not None
    assert socket.closed.reason == reasons.LOG_WENT_BACK
    chat.driven.let_pass(ReadEvents)
    assert chat.driven.open(chat.user, chat.channel, since=0).sequences == [1]


def test_replayed_after_the_end_takes_nothing_more(chat: DrivenChat) -> None:
    chat.elsewhere.append(chat.channel)
    socket = chat.driven.open(chat.user, chat.channel, socket=Socket(away=True), since=0)
    assert socket.subscriber is not None
    assert socket.subscriber.state is SubscriberState.REPLAYING
    chat.driven.leave(socket)
    assert not chat.driven.replica.replayed(socket, 1)
    assert chat.driven.replica.next_pages(socket, now=chat.driven.now) == []
    assert chat.driven.replica.counters.replayed == 0


# --- ending --------------------------------------------------------------------------------------


def fill(chat: DrivenChat, channel: str, count: int) -> None:
    for _ in range(count):
        chat.driven.commit(channel)
        chat.driven.flush()


@pytest.mark.parametrize("sockets", [1, FEW_AT_ONCE, 3 * FEW_AT_ONCE + 1])
def test_readers_that_the_ring_has_overrun_end_with_their_place(sockets: int) -> None:
    chat = DrivenChat(capacity=8)
    slow = [chat.driven.open(chat.user, chat.channel) for _ in range(sockets)]
    fast = chat.driven.open(chat.user, chat.channel)
    chat.driven.commit(chat.channel)
    for socket in slow:
        socket.stuck = True
    fill(chat, chat.channel, 200)
    for socket in slow:
        assert socket.closed is not None
        assert socket.closed.code == CloseCode.POLICY_VIOLATION
        assert socket.closed.missed is not None
        assert socket.closed.reason == reasons.lagged(socket.closed.missed, 1)
    assert fast.sequences == list(range(1, 202))
    counters = chat.driven.replica.counters
    assert (counters.lagged, counters.subscribers) == (sockets, 1)
    assert counters.missed == sum(socket.closed.missed or 0 for socket in slow if socket.closed)
    slow = [chat.driven.open(chat.user, chat.channel)]
    slow[0].stuck = True
    fill(chat, chat.channel, 200)
    assert slow[0].closed is not None, "those who lag later end too"


def test_lagged_readers_are_looked_for_again_after_that_broke_off(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = DrivenChat(capacity=8)
    take = chat.driven.hub.take_lagged
    found: list[int] = []

    def fail_behind_the_first(limit: int) -> list[Lagged]:
        if sum(found) == 1 and len(chat.driven.defects) == 0:
            raise ValueError
        lagged = take(limit)
        found.append(len(lagged))
        return lagged

    monkeypatch.setattr(chat.driven.hub, "take_lagged", fail_behind_the_first)
    for number in (1, 2):
        socket = chat.driven.open(chat.user, chat.channel)
        socket.stuck = True
        fill(chat, chat.channel, 200)
        assert socket.closed is not None
        assert sum(found) == number
    assert len(chat.driven.defects) == 1


def test_a_lagged_notification_stream_has_no_place_to_resume_from() -> None:
    chat = DrivenChat(capacity=8)
    socket = chat.driven.open(chat.user)
    socket.stuck = True
    fill(chat, chat.channel, 200)
    assert socket.closed is not None
    assert socket.closed.missed is not None
    assert socket.closed.reason == reasons.lagged(socket.closed.missed, None)
    (reader,) = chat.driven.replica.streams.closed_readers.newest(10, chat.driven.now)
    assert (reader.user_id, reader.channel_id) == (chat.user, None)
    assert (reader.missed, reader.cause) == (socket.closed.missed, "lagged")
    chat.driven.replica.streams.count_missed(socket, "write_timeout")
    assert len(chat.driven.replica.streams.closed_readers.newest(10, chat.driven.now)) == 1, "one line for one socket"


def test_what_a_socket_had_not_got_at_its_deadline_counts_as_dropped(chat: DrivenChat) -> None:
    socket = chat.driven.open(chat.user, chat.channel)
    socket.stuck = True
    for _ in range(3):
        chat.driven.commit(chat.channel)
    streams = chat.driven.replica.streams
    streams.count_missed(socket, None)
    assert streams.closed_readers.newest(10, chat.driven.now) == []
    streams.count_missed(socket, "write_timeout")
    chat.driven.leave(socket)
    streams.count_missed(socket, "write_timeout")
    assert chat.driven.replica.counters.dropped == 6
    (reader,) = streams.closed_readers.newest(10, chat.driven.now)
    assert (reader.user_id, reader.channel_id, reader.missed) == (chat.user, chat.channel, 3)
    assert reader.cause == "write_timeout"


def test_events_are_counted_by_whether_somebody_got_them(chat: DrivenChat) -> None:
    chat.driven.commit(chat.channel)
    socket = chat.driven.open(chat.user, chat.channel)
    chat.driven.commit(chat.channel)
    chat.driven.deliver(chat.elsewhere.append(chat.channel))
    chat.driven.leave(socket)
    notified = chat.driven.open(chat.user)
    chat.driven.commit(chat.channel)
    assert [frame["sequence"] for frame in notified.frames] == [4]
    counters = chat.driven.replica.counters
    assert (counters.delivered, counters.undelivered) == (3, 1)
    assert counters.snapshot()["subscribers"] == 1


def test_streams_of_one_user_are_known_in_the_order_of_their_coming(chat: DrivenChat) -> None:
    sockets = [chat.driven.open(chat.user, channel) for channel in (chat.channel, None, chat.channel)]
    other = chat.driven.open(chat.elsewhere.user())
    streams = chat.driven.replica.streams
    assert streams.sockets_of(chat.user) == sockets
    assert streams.sockets() == [*sockets, other]
    chat.driven.leave(sockets[1])
    assert streams.sockets_of(chat.user) == [sockets[0], sockets[2]]
    assert streams.sockets_of("nobody") == []


def test_one_socket_that_fails_does_not_keep_the_others_open(chat: DrivenChat) -> None:
    """A defect in the work for one of many sockets is a line in the log."""
    sockets = [chat.driven.open(chat.user, chat.channel) for _ in range(3)]
    answers = [True, False, False]

    def fails_once(public: bytes) -> bool:
        if answers.pop(0):
            raise ValueError
        return False

    chat.driven.replica.keys_replaced(fails_once, now=chat.driven.now)
    chat.driven.perform_actions()
    assert [socket.closed is not None for socket in sockets] == [False, True, True]
    assert len(chat.driven.defects) == 1
    assert len(chat.driven.taken(Close)) == 2

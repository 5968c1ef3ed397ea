"""The call contract: nothing the peer sent is lost, in whatever turn the caller calls, and misuse changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from openguild_proto.connection.phases import PHASES, Phase, Reading, Wants
from openguild_proto.connection.server import ServerConnection
from openguild_proto.errors import LocalProtocolError
from openguild_proto.events import (
    DeadlineExpired,
    Event,
    PeerClosed,
    PeerGone,
    PeerViolated,
    RequestReceived,
    TextReceived,
    WebSocketRequested,
)
from openguild_proto.http.message import Response
from openguild_proto.limits import Limits
from openguild_proto.ws.frames import close_frame, pong_frame, text_frame
from tests.support.wire import HANDSHAKE, HEAD, connection, cut, drive, masked

LIMITS = Limits(max_outbox_bytes=1_000_000)


def request(number: int) -> bytes:
    return b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number


def paths(events: list[Event]) -> list[str]:
    return [event.request.path for event in events if isinstance(event, RequestReceived)]


# --- in any turn -----------------------------------------------------------------------------------


@given(
    st.integers(1, 8),
    st.lists(st.integers(0, 400), max_size=8),
    st.lists(st.sampled_from(["feed", "next", "deadline", "answer"]), max_size=60),
    st.booleans(),
)
@settings(deadline=None, max_examples=300)
def test_no_whole_request_is_lost_in_whatever_turn_it_is_asked_for(
    count: int, places: list[int], turns: list[str], eof: bool
) -> None:
    """`next_events` forgotten, deadlines looked at meanwhile, answers later, the peer's end before them."""
    conn = connection(LIMITS)
    waiting = cut(b"".join(request(number) for number in range(count)), places)
    given: list[Event] = []
    for turn in turns:
        match turn:
            case "feed" if waiting:
                given += conn.receive_data(waiting.pop(0), 0.0)
            case "next":
                given += conn.next_events(0.0)
            case "deadline":  # none has passed but those of a peer that is silent
                given += conn.handle_deadline(9.0)
            case "answer" if conn.awaits_response:
                conn.respond(Response.empty(), 0.0)
    given += conn.receive_data(b"".join(waiting), 0.0)
    if eof:
        given += conn.receive_eof(0.0)
    while conn.awaits_response:
        conn.respond(Response.empty(), 0.0)
        given += conn.next_events(0.0)
    assert paths(given) == [f"/{number}" for number in range(count)]
    assert b"".join(conn.data_to_send()).count(b"HTTP/1.1 204 ") == count
    assert conn.phase is (Phase.CLOSED if eof else Phase.IDLE)


def test_a_request_that_waits_unread_meets_no_deadline() -> None:
    """Where `next_events` was forgotten, the peer is not to blame."""
    conn = connection()
    conn.receive_data(request(1) + request(2), 0.0)
    conn.respond(Response.empty(), 0.0)
    assert conn.next_deadline() is None
    assert conn.handle_deadline(10_000.0) == []
    assert paths(conn.next_events(10_000.0)) == ["/2"]


@pytest.mark.parametrize("unread", [b"", request(2), request(2)[:9], b"\r\n", b"nonsense\r\n\r\n"])
def test_each_feed_works_when_it_is_called(unread: bytes) -> None:
    """Nothing has to be iterated for it."""
    conn = connection()
    conn.receive_data(request(1) + unread, 0.0)
    assert conn.awaits_response
    conn.receive_eof(0.0)
    assert conn.phase is Phase.HALF_CLOSED_RESPONSE
    conn.respond(Response.empty(), 0.0)
    conn.next_events(0.0)
    assert conn.awaits_response == (unread == request(2))
    silent = connection()
    silent.handle_deadline(10.0)
    assert silent.is_over


def test_requests_before_the_peer_s_end_are_all_answered() -> None:
    conn = connection()
    events = conn.receive_data(request(1) + request(2), 0.0) + conn.receive_eof(0.0)
    assert paths(events) == ["/1"]
    assert events[-1] == PeerGone()
    conn.respond(Response.empty(), 0.0)
    assert conn.wants is Wants.KEEP
    assert paths(conn.next_events(0.0)) == ["/2"]
    conn.respond(Response.empty(), 0.0)
    assert len(b"".join(conn.data_to_send()).split(b"HTTP/1.1 204 ")) == 3
    assert conn.wants is Wants.CLOSE


def test_the_end_of_the_peer_leaves_a_request_that_was_not_asked_for() -> None:
    conn = connection()
    conn.receive_data(request(1) + request(2), 0.0)
    conn.respond(Response.empty(), 0.0)
    events = conn.receive_eof(0.0)
    assert paths(events) == ["/2"]
    assert events[-1] == PeerGone()
    assert conn.awaits_response


def test_no_stream_begins_behind_the_peer_s_end() -> None:
    conn = connection()
    conn.receive_data(HANDSHAKE, 0.0)
    conn.receive_eof(0.0)
    with pytest.raises(LocalProtocolError):
        conn.accept(0.0)
    conn.respond(Response.text("no", status=403), 0.0)
    assert b"".join(conn.data_to_send()).startswith(b"HTTP/1.1 403 ")


# --- the order of answers --------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from(["text", "ping"]), max_size=12), st.booleans(), st.lists(st.integers(0, 200), max_size=6)
)
@settings(deadline=None)
def test_answers_leave_in_the_order_of_what_they_answer(kinds: list[str], ends: bool, places: list[int]) -> None:
    """Pongs and the close frame are the connection's own, messages the caller's."""
    conn = connection()
    drive(conn, [HANDSHAKE])
    frames, expected = [], []
    for number, kind in enumerate(kinds):
        payload = b"%d" % number
        frames.append(masked(0x81 if kind == "text" else 0x89, payload))
        expected.append(text_frame(payload) if kind == "text" else pong_frame(payload))
    if ends:
        frames.append(masked(0x88, b"\x03\xe8"))
        expected.append(close_frame(1000))
    for piece in cut(b"".join(frames), places):
        events = conn.receive_data(piece, 0.0)
        while events:
            for event in events:
                if isinstance(event, TextReceived):
                    conn.send_text(event.text, 0.0)
            events = conn.next_events(0.0)
    assert b"".join(conn.data_to_send()) == b"".join(expected)
    assert conn.is_over == ends


def test_a_deadline_finds_a_close_frame_that_waits_behind_messages() -> None:
    conn = connection()
    drive(conn, [HANDSHAKE])
    assert conn.receive_data(masked(0x81, b"x") + masked(0x88, b"\x03\xe8"), 0.0) == [TextReceived("x")]
    assert conn.handle_deadline(1.0) == [PeerClosed(1000, "")]


def test_an_answer_that_comes_too_late_is_dropped() -> None:
    conn = connection(Limits(max_pipelined_bytes=10))
    conn.receive_data(request(1), 0.0)
    (violation,) = conn.receive_data(b"x" * 11, 0.0)
    assert isinstance(violation, PeerViolated)
    sent = b"".join(conn.data_to_send())
    conn.respond(Response.text("late"), 0.0)
    assert sent.startswith(b"HTTP/1.1 400 ")
    assert conn.data_to_send() == []


def test_no_bytes_are_no_bytes_too_many() -> None:
    """One piece may hold more than is kept of several."""
    conn = connection(Limits(max_pipelined_bytes=10))
    conn.receive_data(request(1) + request(2), 0.0)
    assert conn.receive_data(b"", 0.0) == []
    conn.respond(Response.empty(), 0.0)
    assert paths(conn.next_events(0.0)) == ["/2"]


# --- the end ---------------------------------------------------------------------------------------


def test_the_write_side_is_shut_once_and_the_peer_gets_a_moment() -> None:
    """RFC 9112 9.6."""
    conn = connection()
    conn.receive_data(b"nonsense\r\n\r\n", 0.0)
    assert conn.wants is Wants.KEEP, "the answer is to leave first"
    with pytest.raises(LocalProtocolError):
        conn.write_ended(1.0)
    conn.data_to_send()
    assert conn.wants is Wants.SHUT_WRITE
    conn.write_ended(1.0)
    assert (conn.wants, conn.next_deadline()) == (Wants.KEEP, 3.0)
    assert conn.receive_data(request(1), 2.0) == []
    assert conn.handle_deadline(3.0) == [], "it had ended before"
    assert conn.wants is Wants.CLOSE


def test_the_peer_s_end_ends_the_wait_for_it() -> None:
    conn = connection()
    conn.close(1012, "", 0.0)
    conn.write_ended(0.0)
    assert conn.receive_eof(0.5) == [PeerGone()]
    assert (conn.wants, conn.next_deadline()) == (Wants.CLOSE, None)


# --- any calls at all ------------------------------------------------------------------------------

CALLS: list[Callable[[ServerConnection, float], object]] = [
    lambda conn, now: conn.respond(Response.text("ok"), now),
    lambda conn, now: conn.respond(Response(200, close=True), now),
    lambda conn, now: conn.respond(Response(200, headers=(("x", "\r\n"),)), now),
    lambda conn, now: conn.accept(now),
    lambda conn, now: conn.accept(now, "no token"),
    lambda conn, now: conn.send_text("hello", now),
    lambda conn, now: conn.send_bytes(b"x" * 30_000, now),
    lambda conn, now: conn.close(1012, "bye", now),
    lambda conn, now: conn.close(1005, "not sendable", now),
    lambda conn, now: conn.expire_at(now + 10, 4401, "ended"),
    lambda conn, now: conn.write_ended(now),
]
PIECES = [
    request(1), request(1) * 3, HANDSHAKE, HANDSHAKE[:40], HANDSHAKE[40:], b"\r\n", b"\r", b"\n", b"nonsense\r\n",
    b"GET / HTTP/1.0\r\n\r\n", HEAD + b"Content-Length: 3\r\n\r\na", b"bc", HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n",
    b"a\r\n0\r\n\r\n",
    masked(0x81, b"hi"), masked(0x89, b"p"), masked(0x88, b"\x03\xe8"), masked(0x01, b"a"), masked(0x80, b"b"), b"\x81", b"\xff",
]  # fmt: skip


class AnyCalls(RuleBasedStateMachine):
    """Whatever is called when: only LocalProtocolError is raised, it changes nothing, and what is over stays over."""

    @initialize()
    def begin(self) -> None:
        self.conn = connection(Limits(max_outbox_bytes=50_000, max_pipelined_bytes=200))
        self.now = 0.0
        self.was_over = self.eof = False

    def seen(self) -> tuple[object, ...]:
        conn = self.conn
        return conn.phase, bytes(conn.outbox.peek(1 << 20)), conn.next_deadline(), conn.wants, conn.is_websocket

    def call(self, action: Callable[[ServerConnection, float], object]) -> object:
        before = self.seen()
        try:
            return action(self.conn, self.now)
        except LocalProtocolError:
            assert self.seen() == before
            return None

    @rule(pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=3))
    def receive(self, pieces: list[bytes]) -> None:
        if self.eof and self.conn.phase in {Phase.HALF_CLOSED, Phase.HALF_CLOSED_RESPONSE}:
            assert self.call(lambda conn, now: conn.receive_data(b"".join(pieces), now)) is None
        else:
            assert_events(self.conn.receive_data(b"".join(pieces), self.now))

    @rule()
    def next_events(self) -> None:
        assert_events(self.conn.next_events(self.now))

    @rule()
    def receive_eof(self) -> None:
        self.eof = True
        assert_events(self.conn.receive_eof(self.now), PeerGone)

    @rule(call=st.sampled_from(CALLS))
    def command(self, call: Callable[[ServerConnection, float], object]) -> None:
        self.call(call)

    @rule(call=st.sampled_from(CALLS[:4]))
    @precondition(lambda self: self.conn.awaits_response)
    def answer(self, call: Callable[[ServerConnection, float], object]) -> None:
        self.call(call)

    @rule(secs=st.floats(0, 40))
    def wait(self, secs: float) -> None:
        self.now += secs

    @rule()
    @precondition(lambda self: self.conn.next_deadline() is not None)
    def pass_deadline(self) -> None:
        self.now = max(self.now, self.conn.next_deadline() or 0.0)
        assert_events(self.conn.handle_deadline(self.now), DeadlineExpired)
        next_one = self.conn.next_deadline()
        assert next_one is None or next_one > self.now or self.conn.is_over

    @rule(nbytes=st.integers(0, 20_000))
    def send(self, nbytes: int) -> None:
        self.conn.outbox.consume(min(nbytes, len(self.conn.outbox)))
        self.conn.wrote(nbytes, self.now)
        if not self.conn.outbox:
            self.conn.write_idle(self.now)

    @rule()
    @precondition(lambda self: len(self.conn.outbox) > 0)
    def write_blocked(self) -> None:
        self.conn.write_blocked(self.now)

    @invariant()
    def what_is_over_stays_over(self) -> None:
        assert self.conn.is_over or not self.was_over
        self.was_over = self.conn.is_over

    @invariant()
    def a_caller_that_is_due_is_not_hurried(self) -> None:
        if self.conn.awaits_response or self.conn.phase in {Phase.UNREAD, Phase.HALF_CLOSED}:
            assert (self.conn.next_deadline() is None) == (not self.conn.is_write_blocked)

    @invariant()
    def a_peer_that_is_due_has_a_deadline(self) -> None:
        row = PHASES[self.conn.phase]
        if row.own is not None:
            assert self.conn.next_deadline() is not None
        assert (row.reading is Reading.FRAMES) <= self.conn.is_websocket


def assert_events(events: list[Event], *more: type) -> None:
    """One request at most, and a violation or a close frame only by itself."""
    asked = [event for event in events if isinstance(event, RequestReceived | WebSocketRequested)]
    assert len(asked) <= 1
    if any(isinstance(event, PeerViolated | PeerClosed) for event in events):
        assert len([event for event in events if not isinstance(event, more)]) == 1


AnyCalls.TestCase.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)
TestAnyCalls = AnyCalls.TestCase

"""The deadlines of a connection: silence, slow heads, bodies and frames, pings, writes, its lifetime."""

from __future__ import annotations

import pytest

from openguild_proto.connection.phases import Wants
from openguild_proto.connection.server import ServerConnection
from openguild_proto.events import (
    DeadlineExpired,
    RequestReceived,
    TextReceived,
)
from openguild_proto.http.message import Response
from openguild_proto.limits import Limits
from openguild_proto.ws.close_codes import CloseCode
from openguild_proto.ws.frames import close_frame, ping_frame
from tests.support.wire import HEAD, connection, drive, masked, opened


def expire(conn: ServerConnection) -> tuple[list[object], bytes]:
    """Let the next deadline pass."""
    deadline = conn.next_deadline()
    assert deadline is not None
    assert list(conn.handle_deadline(deadline - 0.001)) == [], "an early call does nothing"
    return list(conn.handle_deadline(deadline)), b"".join(conn.data_to_send())


def test_silence_slow_heads_and_slow_bodies_end() -> None:
    silent = connection()
    assert silent.next_deadline() == 10.0
    assert expire(silent) == ([DeadlineExpired("head")], b"")
    assert silent.is_over
    slow = connection()
    list(slow.receive_data(b"GET /", 3.0))
    events, sent = expire(slow)
    (event,) = events
    assert isinstance(event, DeadlineExpired)
    assert (event.name, event.reason, event.status_hint) == ("head", "request_timeout", 408)
    assert sent.startswith(b"HTTP/1.1 408 ")
    assert f"\r\nx-request-id: {event.request_id}\r\n".encode() in sent
    body = connection()
    list(body.receive_data(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx", 5.0))
    assert body.next_deadline() == 35.0
    events, sent = expire(body)
    (event,) = events
    assert isinstance(event, DeadlineExpired)
    assert (event.name, event.reason, event.status_hint) == ("body", "request_timeout", 408)
    assert sent.startswith(b"HTTP/1.1 408 ")
    assert f"\r\nx-request-id: {event.request_id}\r\n".encode() in sent


def test_a_slow_head_is_not_prolonged_by_more_bytes() -> None:
    conn = connection()
    for second in range(9):
        list(conn.receive_data(b"G", float(second)))
    assert conn.next_deadline() == 10.0


def test_keep_alive_ends_after_the_idle_time() -> None:
    conn = connection()
    drive(conn, [HEAD + b"\r\n"], now=100.0)
    assert conn.next_deadline() == 175.0
    assert expire(conn) == ([DeadlineExpired("idle")], b"")


@pytest.mark.parametrize("pieces", [[b"\r\n"], [b"\r", b"\n"], [b"\r"]])
def test_an_empty_line_begins_no_request_in_whatever_pieces_it_comes(pieces: list[bytes]) -> None:
    """RFC 9112 2.2: old clients send one behind a body."""
    conn = connection()
    drive(conn, [HEAD + b"\r\n"])
    for piece in pieces:
        list(conn.receive_data(piece, 1.0))
    assert expire(conn) == ([DeadlineExpired("idle")], b"")


def test_two_unanswered_pings_end_the_socket() -> None:
    conn = opened()
    for _ in range(2):
        assert expire(conn) == ([], ping_frame())
    events, sent = expire(conn)
    assert events == [DeadlineExpired("ping", "ping_timeout")]
    assert sent == close_frame(1011, "no pong")
    assert conn.is_over


def test_anything_heard_puts_the_ping_off() -> None:
    conn = opened()
    assert conn.next_deadline() == 25.0
    drive(conn, [masked(0x81, b'{"type":"ping","ts":1}')], now=20.0)
    assert conn.next_deadline() == 45.0
    expire(conn)
    drive(conn, [masked(0x8A, b"")], now=46.0)
    assert expire(conn) == ([], ping_frame()), "the count began anew"


def test_crumbs_of_a_frame_put_no_ping_off() -> None:
    conn = opened()
    frame = masked(0x81, b"x" * 60_000)
    for at in range(50):
        assert list(conn.receive_data(frame[at : at + 1], at * 0.5)) == []
    assert conn.next_deadline() == 25.0
    assert expire(conn) == ([], ping_frame())
    assert conn.next_deadline() == 30.0, "from its first byte"
    events, sent = expire(conn)
    assert events == [DeadlineExpired("frame", "frame_timeout")]
    assert sent == close_frame(1008, "a frame took too long")
    assert conn.is_over


def test_each_frame_has_its_own_time() -> None:
    conn = opened()
    frame = masked(0x01, b"x" * 10)
    drive(conn, [frame[:1]], now=20.0)
    drive(conn, [frame[1:] + masked(0x80, b"y")[:3]], now=24.0)
    assert conn.next_deadline() == 49.0, "a fragment is a whole frame"
    assert expire(conn) == ([], ping_frame())
    assert conn.next_deadline() == 54.0
    assert drive(conn, [masked(0x80, b"y")[3:]], now=53.0)[0] == [TextReceived("x" * 10 + "y")]
    assert conn.next_deadline() == 78.0, "nothing has begun"


def test_a_whole_frame_meets_no_deadline_while_messages_wait_to_be_taken() -> None:
    """A ping behind the first message and one behind the second: `next_events` gives the rest, however late it is called."""
    conn = opened()
    ping = masked(0x89, b"")
    pieces = [masked(0x81, text) + ping for text in (b"a", b"b", b"c")]
    list(conn.receive_data(pieces[0][:3], 0.0))
    given = conn.receive_data(pieces[0][3:] + pieces[1] + pieces[2], 29.0)
    given += conn.handle_deadline(30.0)
    given += conn.handle_deadline(100.0)
    assert given == [TextReceived("a"), TextReceived("b"), TextReceived("c")]
    assert conn.next_events(100.0) == []
    assert conn.next_deadline() == 125.0


def test_the_pong_rule_ends_a_frame_that_has_more_time() -> None:
    conn = opened(Limits(frame_timeout_secs=1_000.0))
    for second in range(75):
        list(conn.handle_deadline(float(second)))
        list(conn.receive_data(masked(0x82, b"x" * 200)[second : second + 1], float(second)))
    assert list(conn.handle_deadline(75.0)) == [DeadlineExpired("ping", "ping_timeout")]


def test_our_close_ends_the_time_of_a_frame() -> None:
    conn = opened()
    drive(conn, [masked(0x81, b"x")[:3]], now=1.0)
    conn.close(CloseCode.SERVICE_RESTART, "", 2.0)
    drive(conn, [masked(0x81, b"x")[3:4]], now=3.0)
    assert expire(conn) == ([DeadlineExpired("close")], b"")


def test_the_write_deadline_runs_only_while_blocked() -> None:
    conn = opened()
    conn.write_blocked(1.0)
    assert conn.next_deadline() == 11.0
    conn.wrote(5, 6.0)
    assert conn.next_deadline() == 16.0
    conn.write_idle(7.0)
    assert conn.next_deadline() == 25.0
    conn.write_blocked(8.0)
    assert expire(conn)[0] == [DeadlineExpired("write", "write_timeout")]
    assert conn.wants is Wants.ABORT


@pytest.mark.parametrize("ending", [close_frame(1000, ""), b"\x00", b"\x89\x80"])
def test_a_peer_that_takes_nothing_is_given_up_after_the_close_too(ending: bytes) -> None:
    conn = opened()
    conn.write_blocked(1.0)
    ours = masked(0x88, b"\x03\xe8") if ending[:1] == b"\x88" else ending
    list(conn.receive_data(ours, 2.0))
    if conn.is_open:
        conn.close(1001, "", 2.0)
    while conn.next_deadline() is not None:
        expire(conn)
    assert conn.wants is Wants.ABORT


def test_an_answer_taken_in_crumbs_is_given_up() -> None:
    """8 KiB/s in the long run; a fast spell buys no more than the write deadline."""
    conn = connection()
    list(conn.receive_data(HEAD + b"\r\n", 0.0))
    conn.respond(Response.text("x" * 1_000_000), 0.0)
    conn.write_blocked(0.0)
    for second in range(1, 10):
        conn.wrote(40_960, float(second))
        assert conn.next_deadline() == second + 10.0
    for second in range(10, 21):
        conn.wrote(1_024, float(second))
    assert conn.next_deadline() == pytest.approx(19.0 + 11 / 8)
    assert expire(conn)[0] == [DeadlineExpired("write", "write_timeout")]
    assert conn.wants is Wants.ABORT


def test_nothing_follows_the_close_frame_of_a_deadline() -> None:
    conn = opened()
    conn.expire_at(24.9, CloseCode.TOKEN_ENDED, "token expired")  # just before a ping is due
    assert list(conn.handle_deadline(26.0)) == [DeadlineExpired("lifetime")]
    assert b"".join(conn.data_to_send()) == close_frame(4401, "token expired")


@pytest.mark.parametrize("begun", [HEAD, HEAD + b"Content-Length: 2\r\n\r\na"])
def test_a_request_that_has_begun_is_answered_as_the_last_one(begun: bytes) -> None:
    conn = connection()
    assert list(conn.receive_data(begun, 0.0)) == []
    conn.close(CloseCode.SERVICE_RESTART, "", 0.0)
    assert not conn.is_over
    rest = b"\r\n" if begun == HEAD else b"b"
    (event,) = conn.receive_data(rest + HEAD + b"\r\n", 0.0)
    assert isinstance(event, RequestReceived)
    conn.respond(Response.text("last"), 0.0)
    assert b"connection: close" in b"".join(conn.data_to_send())
    assert conn.is_over
    assert list(conn.receive_data(HEAD + b"\r\n", 0.0)) == []


def test_an_idle_connection_ends_behind_what_waits() -> None:
    conn = connection()
    list(conn.receive_data(HEAD + b"\r\n", 0.0))
    conn.respond(Response.text("whole"), 0.0)
    conn.close(CloseCode.SERVICE_RESTART, "", 0.0)
    assert conn.is_over
    assert conn.wants is not Wants.ABORT
    assert b"".join(conn.data_to_send()).endswith(b"whole")


def test_the_lifetime_closes_with_its_code() -> None:
    conn = opened()
    conn.expire_at(20.0, CloseCode.TOKEN_ENDED, "token expired")
    events, sent = expire(conn)
    assert events == [DeadlineExpired("lifetime")]
    assert sent == close_frame(4401, "token expired")
    assert expire(conn) == ([DeadlineExpired("close")], b"")
    assert conn.wants is Wants.ABORT

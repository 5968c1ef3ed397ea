"""One connection through its phases: HTTP, the handshake, WebSocket, closing; misuse."""

from __future__ import annotations

import time

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from openguild_proto.connection.phases import Phase, Wants
from openguild_proto.connection.server import ServerConnection
from openguild_proto.errors import LocalProtocolError
from openguild_proto.events import (
    BytesReceived,
    PeerClosed,
    PeerGone,
    PeerViolated,
    RequestReceived,
    TextReceived,
    WebSocketRequested,
)
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.http.message import Response
from openguild_proto.limits import Limits
from openguild_proto.operations.routes import max_body_bytes
from openguild_proto.ws.close_codes import CLOSE_CODES, CloseCode, is_sendable
from openguild_proto.ws.frames import close_frame
from tests.support.wire import HANDSHAKE, HEAD, connection, cut, drive, fixed_bytes, masked, opened

ACCEPT = b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 1.3


# --- HTTP ------------------------------------------------------------------------------------------


def test_request_and_response() -> None:
    conn = connection()
    (event,) = conn.receive_data(HEAD + b"X-Request-Id: my-id\r\nCookie: a\r\nCookie: b\r\n\r\n", 0.0)
    assert isinstance(event, RequestReceived)
    request = event.request
    assert (request.method, request.path, request.query, request.request_id) == ("GET", "/a", "b=c", "my-id")
    assert request.all_headers("cookie") == ["a", "b"]
    assert request.client_address == "192.0.2.7"
    conn.respond(Response.json({"a": 1}), 0.0)
    head, _, body = b"".join(conn.data_to_send()).partition(b"\r\n\r\n")
    assert body == b'{"a":1}'
    assert b"x-request-id: my-id" in head
    assert b"content-length: 7" in head
    assert not conn.is_over


def test_the_next_pipelined_request_waits_for_the_answer() -> None:
    conn = connection()
    (first,) = conn.receive_data((HEAD + b"\r\n") * 2, 0.0)
    assert isinstance(first, RequestReceived)
    assert conn.next_events(0.0) == [], "the first is not answered yet"
    conn.respond(Response.empty(), 0.0)
    (second,) = conn.next_events(0.0)
    assert isinstance(second, RequestReceived)
    conn.respond(Response.empty(), 0.0)
    assert conn.next_events(0.0) == []


def test_a_half_closed_peer_still_gets_its_answer() -> None:
    conn = connection()
    list(conn.receive_data(HEAD + b"\r\n", 0.0))
    assert list(conn.receive_eof(0.0)) == [PeerGone()]
    conn.respond(Response.text("late"), 0.0)
    assert b"late" in b"".join(conn.data_to_send())
    assert conn.is_over


def test_continue_is_sent_once_before_the_body() -> None:
    conn = connection()
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    assert list(conn.receive_data(head, 0.0)) == []
    assert b"".join(conn.data_to_send()).startswith(b"HTTP/1.1 100 ")
    events, sent = drive(conn, [b"h", b"i"])
    assert isinstance(events[0], RequestReceived)
    assert events[0].request.body == b"hi"
    assert sent.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("head", "pieces"),
    [
        (b"Content-Length: 6\r\n\r\n", [(b"", 0), (b"ab", 2), (b"cde", 5), (b"f", 0)]),
        (b"Transfer-Encoding: chunked\r\n\r\n", [(b"4\r\nab", 2), (b"cd\r\n2\r\nef\r\n", 6), (b"0\r\n\r\n", 0)]),
        (b"Transfer-Encoding: chunked\r\n\r\n", [(b"4\r\nabcd\r\n", 4), (b"x\r\n", 0)]),
    ],
    ids=["of known length", "in chunks", "broken"],
)
def test_an_unfinished_body_is_counted_as_it_comes(head: bytes, pieces: list[tuple[bytes, int]]) -> None:
    conn = connection()
    assert conn.receive_data(b"POST / HTTP/1.1\r\nHost: x\r\n" + head, 0.0) == []
    for piece, nbytes in pieces:
        conn.receive_data(piece, 0.0)
        assert conn.unfinished_body_bytes == nbytes


def test_head_has_no_body_but_its_length() -> None:
    _, sent = drive(connection(), [b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"])
    assert sent.endswith(b"content-length: 2\r\n\r\n")


# --- the handshake ---------------------------------------------------------------------------------


@given(st.lists(st.integers(0, len(HANDSHAKE) + 20), max_size=8))
@settings(deadline=None)
def test_any_cut_of_a_handshake_and_its_first_frames(places: list[int]) -> None:
    """What comes behind the handshake belongs to the WebSocket."""
    data = HANDSHAKE + masked(0x81, b"hello") + masked(0x89, b"p") + masked(0x82, b"\0\1")
    events, sent = drive(connection(), cut(data, places))
    assert isinstance(events[0], WebSocketRequested)
    assert events[1:] == [TextReceived("hello"), BytesReceived(b"\0\1")]
    assert ACCEPT in sent
    assert sent.endswith(b"\x8a\x01p")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""), 400),
        ((b"dGhlIHNhbXBsZSBub25jZQ==", b""), 400),
        ((b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ="), 400),
        ((b"dGhlIHNhbXBsZSBub25jZQ==", b"!" * 24), 400),
        (
            (
                b"dGhlIHNhbXBsZSBub25jZQ==\r\n",
                b"dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            ),
            400,
        ),
        ((b"Version: 13", b"Version: 8"), 426),
        ((b"Sec-WebSocket-Version: 13\r\n", b""), 426),
        ((b"keep-alive, Upgrade", b"keep-alive"), 400),
        ((b"HTTP/1.1", b"HTTP/1.0"), 400),
        ((b"GET", b"POST"), 400),
        ((b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\nhi"), 400),
    ],
)
def test_bad_handshakes_are_refused(change: tuple[bytes, bytes], status: int) -> None:
    conn = connection()
    (event,), sent = drive(conn, [HANDSHAKE.replace(*change, 1)])
    assert isinstance(event, PeerViolated)
    assert event.status_hint == status
    assert sent.startswith(b"HTTP/1.1 %d " % status)
    assert conn.is_over


@pytest.mark.parametrize(
    ("origin", "admitted"),
    [(b"", True), (b"Origin: https://a.example\r\n", True), (b"Origin: https://b.example\r\n", False)],
)
def test_a_page_of_another_origin_cannot_open_a_stream(origin: bytes, admitted: bool) -> None:
    policy = HeaderPolicy.create(cors_allowed_origins=("https://a.example",))
    conn = connection(policy=policy)
    (event, *_) = conn.receive_data(HANDSHAKE.replace(b"\r\n\r\n", b"\r\n" + origin + b"\r\n"), 0.0)
    if admitted:
        assert isinstance(event, WebSocketRequested)
        return
    assert isinstance(event, PeerViolated)
    assert (event.status_hint, event.reason) == (403, "origin_not_allowed")
    answer = b"".join(conn.data_to_send())
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b'"error":"origin_not_allowed"' in answer
    assert conn.is_over


def test_an_upgrade_can_be_refused_with_a_response() -> None:
    conn = connection()
    list(conn.receive_data(HANDSHAKE, 0.0))
    conn.respond(Response.text("no", status=403), 0.0)
    assert b"".join(conn.data_to_send()).startswith(b"HTTP/1.1 403 ")
    assert not conn.is_websocket


# --- WebSocket -------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 400), max_size=10), st.lists(st.integers(0, 90), max_size=5))
@settings(deadline=None)
def test_any_fragmentation_and_any_cut_give_the_same_message(places: list[int], fragments: list[int]) -> None:
    text = "fragmented — with ünïcödé \U0001f600 across the cuts"
    parts = cut(text.encode(), fragments)
    frames = [
        masked((0x80 if place == len(parts) - 1 else 0) | (0x01 if place == 0 else 0), part)
        for place, part in enumerate(parts)
    ]
    frames.insert(1, masked(0x89, b"between"))
    events, sent = drive(opened(), cut(b"".join(frames), places))
    assert events == [TextReceived(text)]
    assert sent == b"\x8a\x07between"


def test_the_message_limit_counts_all_fragments() -> None:
    limits = Limits(max_message_bytes=100)
    events, _ = drive(opened(limits), [masked(0x01, b"x" * 50), masked(0x80, b"x" * 50)])
    assert events == [TextReceived("x" * 100)]
    events, sent = drive(opened(limits), [masked(0x01, b"x" * 50), masked(0x80, b"x" * 51)])
    assert [event.close_hint for event in events if isinstance(event, PeerViolated)] == [1009]
    assert sent[:4] == b"\x88" + sent[1:2] + b"\x03\xf1"


def test_the_number_of_fragments_is_limited() -> None:
    conn = opened(Limits(max_message_fragments=10))
    events, _ = drive(conn, [masked(0x01, b"")] + [masked(0x00, b"")] * 10)
    assert [event.close_hint for event in events if isinstance(event, PeerViolated)] == [1009]


@pytest.mark.parametrize("code", [*range(1000, 1004), *range(1007, 1015), 3000, 4001, 4999])
def test_a_close_is_answered_with_the_same_code(code: int) -> None:
    conn = opened()
    events, sent = drive(conn, [masked(0x88, code.to_bytes(2, "big") + b"bye")])
    assert events == [PeerClosed(code, "bye")]
    assert sent == close_frame(code, "bye")
    assert conn.is_over


@pytest.mark.parametrize(
    ("frame", "code", "rule"),
    [
        (masked(0x81, b"\xff"), 1007, "RFC 6455 8.1: text or a close reason that is not UTF-8"),
        (masked(0x81, b"\xc3"), 1007, "RFC 6455 8.1: text or a close reason that is not UTF-8"),
        (masked(0x88, b"\x03\xe8\xff"), 1007, "RFC 6455 8.1: text or a close reason that is not UTF-8"),
        (masked(0x88, b"\x03"), 1002, "RFC 6455 5.5.1: malformed close frame"),
        (masked(0x88, b"\x00\x01"), 1002, "RFC 6455 5.5.1: malformed close frame"),
        (masked(0x88, b"\x03\xed"), 1002, "RFC 6455 5.5.1: malformed close frame"),
        (masked(0x88, b"\x03\xf7"), 1002, "RFC 6455 5.5.1: malformed close frame"),
        (masked(0x88, b"\x13\x88"), 1002, "RFC 6455 5.5.1: malformed close frame"),
    ],
)
def test_a_fault_is_named_in_the_rfc_s_words(frame: bytes, code: int, rule: str) -> None:
    """And never in those of a Python exception."""
    events, sent = drive(opened(), [frame])
    (violation,) = events
    assert isinstance(violation, PeerViolated)
    assert (violation.rule, violation.close_hint) == (rule, code)
    assert sent == close_frame(code, rule)


def test_our_close_waits_for_the_peer_s() -> None:
    conn = opened()
    conn.close(CloseCode.SERVICE_RESTART, "bye", 0.0)
    conn.close(CloseCode.NORMAL, "again", 0.0)
    assert b"".join(conn.data_to_send()) == close_frame(1012, "bye")
    assert conn.phase is Phase.CLOSING
    assert not conn.is_over
    events, sent = drive(conn, [masked(0x81, b"ignored") + masked(0x88, b"\x03\xf4")])
    assert events == [PeerClosed(1012, "")]
    assert sent == b""
    assert conn.is_over


def test_pings_that_nobody_reads_end_the_connection() -> None:
    conn = opened(Limits(max_outbox_bytes=10_000))
    flood = masked(0x89, b"p" * 125) * 200
    events = list(conn.receive_data(flood, 0.0))  # nothing is taken out of the outbox
    assert isinstance(events[-1], PeerViolated)
    assert conn.wants is Wants.ABORT
    assert len(conn.outbox) <= 10_000 + 127


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
@settings(deadline=None, max_examples=300)
def test_no_frames_raise_or_depend_on_cuts(data: bytes, places: list[int]) -> None:
    assert drive(opened(), cut(data, places)) == drive(opened(), [data])


def test_an_idle_socket_keeps_neither_parser() -> None:
    conn = opened()
    drive(conn, [masked(0x81, b"x")])
    assert conn._http is None
    assert conn._ws is not None
    assert conn._ws._decoder is None


# --- misuse, tables --------------------------------------------------------------------------------


def test_commands_in_the_wrong_phase_change_nothing() -> None:
    conn = connection()
    for command in (
        lambda: conn.respond(Response.empty(), 0.0),
        lambda: conn.accept(0.0),
        lambda: conn.send_text("x", 0.0),
        lambda: conn.expire_at(1.0, CloseCode.TOKEN_ENDED, "token expired"),
    ):
        with pytest.raises(LocalProtocolError):
            command()
    assert conn.phase is Phase.NEW
    assert len(conn.outbox) == 0
    socket = opened()
    with pytest.raises(LocalProtocolError):
        socket.close(1005, "not sendable", 0.0)
    with pytest.raises(LocalProtocolError):
        socket.close(1000, "x" * 124, 0.0)
    assert socket.phase is Phase.OPEN


@pytest.mark.parametrize(
    "response",
    [
        *(Response(200, headers=(("x-bad", value),)) for value in ("\r\n", "a\0", " a", "€")),
        *(Response(200, headers=((name, "a"),)) for name in ("", "x bad", "x\r\nset-cookie: a", "é")),
        *(Response(200, headers=((name, "7"),)) for name in ("content-length", "Transfer-Encoding", "connection")),
        *(Response(status) for status in (0, 99, 101, 199, 600, 1000)),
    ],
    ids=str,
)
@pytest.mark.parametrize("head", [HEAD, HEAD.replace(b"HTTP/1.1", b"HTTP/1.0")], ids=["quick", "through h11"])
def test_a_response_that_cannot_be_sent_is_misuse(head: bytes, response: Response) -> None:
    conn = connection()
    list(conn.receive_data(head + b"\r\n", 0.0))
    with pytest.raises(LocalProtocolError):
        conn.respond(response, 0.0)
    assert len(conn.outbox) == 0
    conn.respond(Response.empty(), 0.0)
    assert b"".join(conn.data_to_send()).startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize("declared", [b"Content-Length: 32769\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n8001\r\n"])
@pytest.mark.parametrize(("path", "taken"), [(b"/users/register", False), (b"/federation/transactions", True)])
def test_a_body_is_held_to_its_route_from_its_declaration(path: bytes, taken: bool, declared: bytes) -> None:
    conn = ServerConnection(now=0.0, random_bytes=fixed_bytes, max_body_of=max_body_bytes)
    events = list(conn.receive_data(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n" + declared, 0.0))
    assert (events == []) is taken
    assert conn.is_over is not taken
    assert b"".join(conn.data_to_send()).startswith(b"" if taken else b"HTTP/1.1 413 ")


@pytest.mark.parametrize("subprotocol", ["é", "a b", "", "chat.v2"])
def test_a_subprotocol_that_is_no_token_or_was_not_offered_is_misuse(subprotocol: str) -> None:
    conn = connection()
    offered = "é, a b, , chat.v1".encode("latin-1")
    list(conn.receive_data(HANDSHAKE[:-2] + b"Sec-WebSocket-Protocol: " + offered + b"\r\n\r\n", 0.0))
    with pytest.raises(LocalProtocolError):
        conn.accept(0.0, subprotocol)
    assert conn.phase is Phase.UPGRADING
    conn.accept(0.0)
    assert ACCEPT in b"".join(conn.data_to_send()).lower().replace(ACCEPT.lower(), ACCEPT)


def test_an_upgrade_brings_the_headers_of_its_operation() -> None:
    conn = connection()
    list(conn.receive_data(HANDSHAKE, 0.0))
    conn.accept(0.0, headers=(("x-openguild-epoch", "7"),))
    sent = b"".join(conn.data_to_send())
    assert b"\r\nx-openguild-epoch: 7\r\n" in sent
    assert b"\r\nx-frame-options: DENY\r\n" in sent


def test_every_close_code_is_documented_and_sendable() -> None:
    assert set(CLOSE_CODES) == set(CloseCode)
    assert all(row.action in {"reconnect", "terminal"} for row in CLOSE_CODES.values())
    assert all(is_sendable(code) for code in CloseCode)
    assert not any(is_sendable(code) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000))


def test_frames_are_limited_per_minute_whatever_they_are() -> None:
    """Pings, pongs, fragments and messages each cost one; what is not used up comes back with time."""
    limits = Limits(max_frames_per_minute=60)
    conn = connection(limits)
    drive(conn, [HANDSHAKE])
    frames = [masked(0x89, b"p"), masked(0x8A, b""), masked(0x01, b"a"), masked(0x80, b"b")]
    assert drive(conn, [b"".join(frames) * 15])[0] == [TextReceived("ab")] * 15
    assert drive(conn, [frames[0]] * 10, now=10.0)[0] == [], "ten seconds later ten more"
    (violation,), sent = drive(conn, [b"".join(frames) * 1_000], now=10.0)
    assert isinstance(violation, PeerViolated)
    assert (violation.reason, violation.close_hint) == ("frame_rate_limit", 1008)
    assert sent.startswith(b"\x88")
    assert conn.is_over


def test_a_flood_of_tiny_frames_costs_linear_time() -> None:
    conn = connection(Limits(max_frames_per_minute=0, max_message_fragments=10**6, max_outbox_bytes=10**9))
    drive(conn, [HANDSHAKE])

    def cost(count: int) -> float:
        data = masked(0x8A, b"") * count
        started = time.process_time()
        assert drive(conn, [data])[0] == []
        return time.process_time() - started

    cost(1_000)
    assert cost(40_000) < 40 * cost(4_000)

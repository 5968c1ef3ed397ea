"""What a caller does wrong raises at once and changes nothing; what its callbacks raise ends the connection."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from openguild_proto import Limits, LocalProtocolError, Phase, Response, ServerConnection, TextReceived, Wants
from openguild_proto.events import PeerClosed, PeerGone, PeerViolated
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.http.message import Headers
from openguild_proto.ws.close_codes import CloseCode
from openguild_proto.ws.frames import close_frame
from tests.support.wire import HANDSHAKE, HEAD, connection, drive, fixed_bytes, masked

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def opened() -> ServerConnection:
    conn = connection()
    drive(conn, [HANDSHAKE])
    conn.data_to_send()
    return conn


@pytest.mark.parametrize(
    ("code", "reason"), [(4401, "é" * 70), (99_999, "x"), (1005, ""), (1006, ""), (1000, "\ud800")]
)
def test_a_close_that_cannot_be_sent_is_refused_when_it_is_planned(code: int, reason: str) -> None:
    conn = opened()
    with pytest.raises(LocalProtocolError):
        conn.expire_at(60.0, code, reason)
    conn.expire_at(50.0, 4401, "token expired")
    with pytest.raises(LocalProtocolError):
        conn.expire_at(float("nan"), 4403, "at no time")
    conn.handle_deadline(50.0)
    assert b"token expired" in b"".join(conn.data_to_send())
    request = connection()
    with pytest.raises(LocalProtocolError):
        request.close(code, reason, 0.0)
    assert request.phase is Phase.NEW


def test_a_code_that_cannot_be_sent_is_refused_when_the_upgrade_is_accepted() -> None:
    conn = connection()
    conn.receive_data(HANDSHAKE, 0.0)
    with pytest.raises(LocalProtocolError):
        conn.accept(0.0, codes={"ping_timeout": 1006})
    assert (conn.phase, len(conn.outbox)) == (Phase.UPGRADING, 0)


def test_an_upgrade_that_is_accepted_after_our_close_is_closed_at_once() -> None:
    conn = connection()
    conn.receive_data(HANDSHAKE, 0.0)
    conn.close(CloseCode.SERVICE_RESTART, "bye", 0.0)
    conn.close(CloseCode.NORMAL, "again", 0.0)
    conn.accept(0.0)
    sent = b"".join(conn.data_to_send())
    assert sent.startswith(b"HTTP/1.1 101 ")
    assert sent.endswith(close_frame(1012, "bye"))
    assert conn.phase is Phase.CLOSING
    with pytest.raises(LocalProtocolError):
        conn.send_text("late", 0.0)
    assert drive(conn, [masked(0x88, b"\x03\xf4")]) == ([PeerClosed(1012, "")], b"")
    assert conn.is_over


@pytest.mark.parametrize(("before", "since"), [(1_000, 100_000), (100_000, 1_000)])
def test_the_limits_of_an_accepted_upgrade_count_from_then_on(before: int, since: int) -> None:
    conn = connection(Limits(max_outbox_bytes=before))
    conn.receive_data(HANDSHAKE, 0.0)
    conn.accept(0.0, limits=Limits(max_outbox_bytes=since))
    conn.data_to_send()
    conn.send_bytes(b"x" * 50_000, 0.0)
    assert conn.wants is (Wants.KEEP if since > before else Wants.ABORT)


def failing(*_: object) -> int:
    raise KeyError("the caller's own fault")


@pytest.mark.parametrize("declared", [b"Content-Length: 40000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n9c40\r\n"])
def test_a_callback_that_raises_ends_the_connection_before_the_body_is_taken_for_a_request(declared: bytes) -> None:
    conn = ServerConnection(now=0.0, random_bytes=fixed_bytes, max_body_of=failing)
    with pytest.raises(KeyError):
        conn.receive_data(HEAD.replace(b"GET", b"POST") + declared + SMUGGLED, 0.0)
    assert (conn.phase, conn.wants, conn.next_events(0.0)) == (Phase.ABORTED, Wants.ABORT, [])


def test_no_request_id_no_request() -> None:
    conn = ServerConnection(now=0.0, random_bytes=failing)  # type: ignore[arg-type]  # it never returns
    with pytest.raises(KeyError):
        conn.receive_data(HEAD + b"Content-Length: 37\r\n\r\n" + SMUGGLED, 0.0)
    assert (conn.phase, conn.next_events(0.0)) == (Phase.ABORTED, [])


class FailsOnce:
    """A callback that works again afterwards, for a driver that goes on."""

    def __init__(self) -> None:
        self.has_failed = False

    def __call__(self, count: int = 0) -> bytes:
        if not self.has_failed:
            self.has_failed = True
            raise KeyError("the caller's own fault")
        return bytes(count)


def test_a_callback_that_raises_in_a_refusal_lets_nothing_be_read_behind_it() -> None:
    conn = ServerConnection(now=0.0, random_bytes=FailsOnce())
    with pytest.raises(KeyError):
        conn.receive_data(b"GET / HTTP/1.1\r\nContent-Length : 5\r\n", 0.0)
    assert conn.receive_data(b"Host: x\r\n\r\n", 0.0) == []
    assert (conn.phase, conn.wants) == (Phase.ABORTED, Wants.ABORT)


@pytest.mark.parametrize("begun", [b"GET /", HEAD + b"Content-Length: 2\r\n\r\n"])
def test_a_callback_that_raises_at_a_deadline_leaves_no_connection_without_one(begun: bytes) -> None:
    clock: Any = FailsOnce()
    conn = ServerConnection(now=0.0, random_bytes=fixed_bytes, policy=HeaderPolicy(wall=clock))
    conn.receive_data(begun, 0.0)
    with pytest.raises(KeyError):
        conn.handle_deadline(30.0)
    assert (conn.phase, conn.wants) == (Phase.ABORTED, Wants.ABORT)


def test_a_callback_that_raises_in_a_response_changes_nothing() -> None:
    clock: Any = FailsOnce()
    conn = ServerConnection(now=0.0, random_bytes=fixed_bytes, policy=HeaderPolicy(wall=clock))
    conn.receive_data(HEAD + b"\r\n", 0.0)
    with pytest.raises(KeyError):
        conn.respond(Response.empty(), 0.0)
    assert (conn.phase, len(conn.outbox)) == (Phase.RESPONDING, 0)


@pytest.mark.parametrize("limit", [0, 100, 32_768])
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_no_body_is_longer_than_the_limit_of_the_connection(limit: int, framing: str) -> None:
    def fed(size: int) -> list[object]:
        conn = connection(Limits(max_body_bytes=limit))
        head = HEAD.replace(b"GET", b"POST")
        if framing == "chunked":
            body = (b"%x\r\n%b\r\n" % (size, b"x" * size) if size else b"") + b"0\r\n\r\n"
            return [*conn.receive_data(head + b"Transfer-Encoding: chunked\r\n\r\n" + body, 0.0)]
        return [*conn.receive_data(head + b"Content-Length: %d\r\n\r\n" % size + b"x" * size, 0.0)]

    assert not isinstance(fed(limit)[0], PeerViolated)
    [refused] = fed(limit + 1)
    assert isinstance(refused, PeerViolated)
    assert refused.status_hint == 413


def test_the_end_of_the_stream_reads_all_that_came_before_it() -> None:
    conn = opened()
    ping = masked(0x89, b"")
    pieces = [masked(0x81, text) + ping for text in (b"a", b"b", b"c")]
    events = conn.receive_data(b"".join(pieces) + masked(0x81, b"d") + masked(0x88, b"\x03\xe8"), 0.0)
    events += conn.receive_eof(1.0)
    assert events == [*(TextReceived(text) for text in "abcd"), PeerClosed(1000, ""), PeerGone()]
    assert conn.next_events(1.0) == []


@pytest.mark.parametrize("value", ["text", 5, None, [0x81]])
def test_what_is_no_bytes_is_refused_and_nothing_breaks(value: Any) -> None:
    conn = opened()
    with pytest.raises(TypeError):
        conn.receive_data(value, 0.0)
    assert conn.receive_data(masked(0x81, b"still open"), 0.0) == [TextReceived("still open")]


@pytest.mark.parametrize("now", [float("nan"), float("inf"), None])
def test_no_message_is_lost_to_a_time_that_is_none(now: Any) -> None:
    conn = opened()
    with pytest.raises(LocalProtocolError):
        conn.receive_data(masked(0x81, b"kept"), now)
    with pytest.raises(LocalProtocolError):
        conn.handle_deadline(now)
    assert conn.next_events(1.0) == [TextReceived("kept")]
    assert conn.next_deadline() == 26.0


@pytest.mark.parametrize("nbytes", [-1, 4])
def test_no_more_is_consumed_than_is_queued(nbytes: int) -> None:
    conn = connection()
    conn.outbox.append(b"abc")
    with pytest.raises(ValueError):
        conn.outbox.consume(nbytes)
    assert conn.data_to_send() == [b"abc"]


@pytest.mark.parametrize(
    "headers",
    [
        (("sec-websocket-protocol", "never-offered"),),
        (("Sec-WebSocket-Accept", "zz"),),
        (("sec-websocket-extensions", "permessage-deflate"),),
        (("upgrade", "h2c"),),
    ],
)
def test_the_headers_of_the_handshake_are_the_connection_s(headers: Headers) -> None:
    conn = ServerConnection(now=0.0, random_bytes=secrets.token_bytes)
    conn.receive_data(HANDSHAKE, 0.0)
    with pytest.raises(LocalProtocolError):
        conn.accept(0.0, None, headers)
    assert len(conn.outbox) == 0
    conn.accept(0.0)
    assert conn.is_open


@pytest.mark.parametrize("head", [HEAD, HEAD.replace(b"HTTP/1.1", b"HTTP/1.0")], ids=["quick", "through h11"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("content-type", "application/problem+json"), ("Access-Control-Allow-Origin", "https://a.test")],
)
def test_a_header_is_sent_once_and_the_response_s_own_one_counts(head: bytes, name: str, value: str) -> None:
    conn = connection()
    conn.receive_data(head + b"\r\n", 0.0)
    conn.respond(Response(200, b"{}", ((name, value),), "application/json"), 0.0)
    lines = b"".join(conn.data_to_send()).split(b"\r\n")
    line = f"{name.lower()}: ".encode()
    assert [sent for sent in lines if sent.lower().startswith(line)] == [line + value.encode()]


UNSENDABLE: list[dict[str, Any]] = [
    {"content_type": "text/€"},
    {"headers": (("X-Request-Id", "mine"),)},
    {"headers": (("a", "b\x01c"),)},
    {"headers": (("a", "b\x7f"),)},
    {"headers": ((b"a", b"b"),)},
    {"headers": (("a", b"b"),)},
    {"headers": {"name": "value"}},
    {"body": "text"},
    {"body": None},
    {"status": "200"},
    {"status": 200.0},
]


@pytest.mark.parametrize("head", [HEAD, HEAD.replace(b"HTTP/1.1", b"HTTP/1.0")], ids=["quick", "through h11"])
@pytest.mark.parametrize("fields", UNSENDABLE, ids=str)
def test_what_cannot_be_sent_is_the_caller_s_fault(head: bytes, fields: dict[str, Any]) -> None:
    conn = connection()
    conn.receive_data(head + b"\r\n", 0.0)
    with pytest.raises(LocalProtocolError):
        conn.respond(Response(**{"status": 200, **fields}), 0.0)
    assert len(conn.outbox) == 0
    conn.respond(Response.empty(), 0.0)
    assert b"".join(conn.data_to_send()).startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize(
    "handshake", [HANDSHAKE, HANDSHAKE.replace(b"Upgrade\r", b"Upgrade, x\r")], ids=["quick", "h11"]
)
def test_no_control_character_is_sent_with_an_accepted_upgrade(handshake: bytes) -> None:
    conn = connection()
    conn.receive_data(handshake, 0.0)
    with pytest.raises(LocalProtocolError):
        conn.accept(0.0, None, (("a", "b\x01c"),))
    conn.accept(0.0)
    assert conn.is_open


def test_a_command_in_the_wrong_phase_says_which_phase_it_needs() -> None:
    conn = connection()
    with pytest.raises(LocalProtocolError, match=r"^send is not allowed: the connection is new, not open$"):
        conn.send_text("hello", 0.0)
    with pytest.raises(
        LocalProtocolError, match=r"^accept is not allowed: the connection is new, not upgrading or last_upgrade$"
    ):
        conn.accept(0.0)

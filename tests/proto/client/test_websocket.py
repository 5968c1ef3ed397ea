"""A client's WebSocket: handshake, messages of both kinds, refusals and faults."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto import RequestReceived, WebSocketRequested
from openguild_proto.client.websocket import (
    Accepted,
    Broken,
    ClientWebSocket,
    Closed,
    Message,
    Refused,
    WebSocketEvent,
)
from openguild_proto.errors import LocalProtocolError
from openguild_proto.limits import MAX_INTERIM_RESPONSES, MAX_RESPONSE_HEAD_BYTES
from openguild_proto.ws.frames import binary_frame, close_frame, ping_frame, text_frame
from tests.support.wire import connection, cut


def accepted(*, interim: bytes = b"") -> tuple[ClientWebSocket, bytes]:
    """A WebSocket, and what a server answers to its handshake."""
    client, server = ClientWebSocket("server:80", "/path?a=1", token="t", subprotocols=("openguild.v2",)), connection()
    for event in server.receive_data(client.data_to_send(), 0.0):
        assert isinstance(event, WebSocketRequested)
        assert (event.request.path, event.request.query) == ("/path", "a=1")
        assert event.request.header("authorization") == "Bearer t"
        server.accept(0.0, subprotocol="openguild.v2", headers=(("X-Word", "there"),))
    return client, interim + b"".join(bytes(part) for part in server.data_to_send())


@given(st.lists(st.integers(1, 400), max_size=6))
def test_any_split_of_the_bytes_gives_the_same_events(places: list[int]) -> None:
    client, answer = accepted(interim=b"HTTP/1.1 103 Early Hints\r\n\r\n")
    data = (
        answer + text_frame("größer".encode()) + ping_frame(b"p") + binary_frame(b"\x00\xff") + close_frame(4009, "why")
    )
    events: list[WebSocketEvent] = []
    for piece in cut(data, places):
        events += client.receive_data(piece)
    first = events.pop(0)
    assert isinstance(first, Accepted)
    assert first.subprotocol == "openguild.v2"
    assert ("x-word", "there") in first.headers
    assert events == [Message("größer"), Message(b"\x00\xff"), Closed(4009, "why")]
    assert client.is_over
    assert client.data_to_send()[:1] == b"\x8a", "a pong, then the answer to the close"


def test_a_refusal_carries_the_response() -> None:
    client = ClientWebSocket("server:80", "/")
    client.data_to_send()
    [refused] = client.receive_data(b"HTTP/1.1 503 X\r\nRetry-After: 3\r\nContent-Length: 4\r\n\r\nbusy")
    assert isinstance(refused, Refused)
    assert (refused.response.status, refused.response.header("retry-after"), refused.response.body) == (
        503,
        "3",
        b"busy",
    )
    assert client.receive_data(b"more") == []


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 103 X\r\n\r\n" * (MAX_INTERIM_RESPONSES + 1),
        b"HTTP/1.1 101 X\r\nA: " + b"a" * MAX_RESPONSE_HEAD_BYTES,
        b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
        b"SSH-2.0\r\n\r\n",
    ],
)
def test_an_answer_that_is_no_handshake_breaks_it(answer: bytes) -> None:
    client = ClientWebSocket("server:80", "/")
    assert [type(event) for event in client.receive_data(answer)] == [Broken]


def test_a_close_is_queued_once_and_nothing_is_sent_behind_it() -> None:
    client, answer = accepted()
    client.receive_data(answer)
    client.send("text")
    client.close()
    queued = client.data_to_send()
    client.send("late")
    client.close()
    assert queued
    assert client.data_to_send() == b""
    assert client.receive_data(text_frame(b"late")) == []


def test_what_it_sends_is_read_by_a_server() -> None:
    client, server = ClientWebSocket("server:80", "/"), connection()
    for event in server.receive_data(client.data_to_send(), 0.0):
        assert not isinstance(event, RequestReceived)
        server.accept(0.0)
    client.receive_data(b"".join(bytes(part) for part in server.data_to_send()))
    client.send("words")
    assert [getattr(event, "text", None) for event in server.receive_data(client.data_to_send(), 0.0)] == ["words"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x02\xff\xff", 1007),
        (b"\xc1\x00", 1002),
        (b"\x83\x00", 1002),
        (b"\x80\x00", 1002),
        (b"\x81\x80\x01\x02\x03\x04", 1002),
        (close_frame(1014, "a proxy's"), 1002),  # which wsproto does not know
    ],
    ids=["no UTF-8", "reserved bit", "opcode", "lone continuation", "masked", "1014"],
)
def test_a_fault_of_the_server_is_no_close_of_its_own(data: bytes, code: int) -> None:
    client, answer = accepted()
    client.receive_data(answer)
    client.data_to_send()
    assert client.receive_data(data) == [Broken(f"the server broke RFC 6455: close code {code}")]
    assert client.data_to_send()[:1] == b"\x88", "the server is told"


def test_empty_fragments_are_not_kept() -> None:
    client, answer = accepted()
    client.receive_data(answer)
    assert client.receive_data(b"\x01\x00") == []
    tracemalloc.start()
    try:
        for _ in range(20):
            assert client.receive_data(b"\x00\x00" * 2_000) == []
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
    assert client.receive_data(b"\x00\x02te\x00\x00\x80\x01a") == [Message("tea")]
    assert client.receive_data(b"\x02\x00\x80\x00\x01\x00\x80\x00") == [Message(b""), Message("")]


@pytest.mark.parametrize("framing", [b"Connection: close\r\n\r\n", b"Content-Length: 900\r\n\r\n"])
def test_a_refusal_may_end_with_the_transport(framing: bytes) -> None:
    client = ClientWebSocket("server:80", "/")
    assert client.receive_data(b"HTTP/1.1 401 X\r\n" + framing + b"{}") == []
    [refused] = client.receive_eof()
    assert isinstance(refused, Refused)
    assert (refused.response.status, refused.response.body) == (401, b"{}")
    assert client.receive_eof() == []
    early = ClientWebSocket("server:80", "/")
    assert early.receive_eof() == [Broken("the connection ended")]


@pytest.mark.parametrize(
    ("host", "target", "token"),
    [("h", "/", "secret\r\nx: y"), ("h", "/", "secreté"), ("h\n", "/", "secret"), ("h", "/a b", "secret")],
)
def test_a_handshake_that_cannot_be_sent_is_misuse_and_keeps_its_token(host: str, target: str, token: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"^the request cannot be sent: ") as misuse:
        ClientWebSocket(host, target, token=token)
    assert "secret" not in str(misuse.value)
    assert misuse.value.__suppress_context__


@pytest.mark.parametrize("subprotocol", ["", "a b", "secret\r\n", "secreté", "secret,b"])
def test_a_subprotocol_that_is_no_token_is_misuse(subprotocol: str) -> None:
    with pytest.raises(LocalProtocolError, match="a subprotocol is a token") as misuse:
        ClientWebSocket("h", "/", subprotocols=("chat.v1", subprotocol))
    assert "secret" not in str(misuse.value)


@pytest.mark.parametrize("code", [999, 1005, 1006, 70_000])
def test_a_message_before_the_upgrade_and_a_code_that_is_none_are_misuse(code: int) -> None:
    client, answer = accepted()
    with pytest.raises(LocalProtocolError):
        client.send("too early")
    client.receive_data(answer)
    with pytest.raises(LocalProtocolError):
        client.close(code)
    assert not client.is_over

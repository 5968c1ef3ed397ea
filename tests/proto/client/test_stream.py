"""Streams that resume: new events, the end of a connection, and reconnects."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.client import Delivered, Disconnected, Ended, Notified, Opened, StreamClient, StreamEvent
from openguild_proto.errors import LocalProtocolError
from openguild_proto.events import WebSocketRequested
from openguild_proto.limits import (
    CLIENT_HANDSHAKE_SECS,
    CLIENT_SILENCE_SECS,
    MAX_INTERIM_RESPONSES,
    MAX_RESPONSE_HEAD_BYTES,
)
from openguild_proto.ws.close_codes import CLOSE_CODES, CloseCode
from openguild_proto.ws.frames import close_frame, ping_frame, text_frame
from tests.support.wire import connection, cut, drive


def frame(sequence: int) -> bytes:
    payload = {"sequence": sequence, "channel_id": "c", "event": {"content": {"content": f"text {sequence}"}}}
    return text_frame(json.dumps(payload).encode())


def handshake(stream: StreamClient, now: float = 0.0) -> tuple[str, bytes]:
    """Connect to a server core; the request target and the server's answer."""
    stream.connect("server:80", "token", now)
    sent = stream.data_to_send()
    return sent.split(b" ")[1].decode(), drive(connection(), [sent])[1]


def opened(since: int | None = 0) -> StreamClient:
    stream = StreamClient("c", since, lambda: 0.5)
    _, answer = handshake(stream)
    assert stream.receive_data(answer, 0.0) == [Opened(since)]
    return stream


@given(st.lists(st.integers(1, 400), max_size=6))
def test_events_are_in_order_for_any_split_of_the_bytes(places: list[int]) -> None:
    stream = opened()
    data = b"".join(frame(sequence) for sequence in (1, 2, 2, 3, 1, 4))
    events: list[StreamEvent] = []
    for piece in cut(data, places):
        if piece:
            events += stream.receive_data(piece, 1.0)
    assert [event.sequence for event in events if isinstance(event, Delivered)] == [1, 2, 3, 4]
    assert (stream.position, stream.repeats, stream.gaps) == (4, 2, 0)


def test_a_gap_ends_the_connection_and_is_replayed() -> None:
    stream = opened()
    events = stream.receive_data(frame(1) + frame(3), 1.0)
    assert isinstance(events[-1], Disconnected)
    assert not stream.connected
    assert handshake(stream)[0] == "/channels/c/ws?since=1"


def asked(stream: StreamClient, epoch: object = None) -> str:
    """Connect to a server core that accepts, and names the epoch where there is one; what was asked for."""
    stream.connect("server:80", "token", 0.0)
    sent, conn = stream.data_to_send(), connection()
    for event in conn.receive_data(sent, 0.0):
        assert isinstance(event, WebSocketRequested)
        conn.accept(0.0, headers=() if epoch is None else (("x-openguild-epoch", str(epoch)),))
    stream.receive_data(b"".join(conn.data_to_send()), 0.0)
    return sent.split(b" ")[1].decode()


def refused(stream: StreamClient, code: str, field: str) -> tuple[str, list[StreamEvent]]:
    """Connect to a server that answers 400; what was asked for, and what becomes of it."""
    stream.connect("server:80", "token", 0.0)
    target = stream.data_to_send().split(b" ")[1].decode()
    body = json.dumps({"error": code, "message": "m", "request_id": "r", "details": [{"field": field, "message": "m"}]})
    return target, stream.receive_data(f"HTTP/1.1 400 X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode(), 0.0)


def test_a_stream_resumes_with_its_epoch() -> None:
    stream = StreamClient("c", None, lambda: 0.5)
    assert asked(stream, 7) == "/channels/c/ws"
    assert stream.epoch == 7
    stream.failed("the link broke", 0.0)
    assert asked(stream, 8) == "/channels/c/ws", "without a sequence the epoch says nothing"
    stream.receive_data(frame(10), 1.0)
    stream.failed("the link broke", 0.0)
    target, (event,) = refused(stream, "invalid_since", "epoch")
    assert target == "/channels/c/ws?since=10&epoch=8"
    assert isinstance(event, Ended)
    assert event.code == 400


@pytest.mark.parametrize(("since", "epoch"), [(-1, None), (2**63, None), (0, 0), (0, 2**53)])
def test_a_position_that_no_log_has_is_refused(since: int, epoch: int | None) -> None:
    with pytest.raises(LocalProtocolError, match="position"):
        StreamClient("c", since, lambda: 0.5, epoch)


def test_a_stored_position_is_sent_with_its_epoch() -> None:
    assert asked(StreamClient("c", 10, lambda: 0.5, 7), 7) == "/channels/c/ws?since=10&epoch=7"
    stream = StreamClient("c", 10, lambda: 0.5)
    assert asked(stream, 9) == "/channels/c/ws?since=10"
    stream.failed("the link broke", 0.0)
    assert asked(stream, 9) == "/channels/c/ws?since=10&epoch=9"


def test_an_older_server_is_asked_without_an_epoch() -> None:
    """It rejects the unknown parameter; during a rolling update a stream may move between both releases."""
    stream = StreamClient("c", 10, lambda: 0.5, 7)
    target, (event,) = refused(stream, "validation_error", "epoch")
    assert target == "/channels/c/ws?since=10&epoch=7"
    assert isinstance(event, Disconnected)
    assert asked(stream) == "/channels/c/ws?since=10"
    stream.failed("the link broke", 0.0)
    assert isinstance(refused(stream, "validation_error", "epoch")[1][0], Ended), "once"
    assert isinstance(refused(StreamClient("c", 1, lambda: 0.5, 7), "validation_error", "since")[1][0], Ended)


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5", "01", str(2**53), "9" * 17])
def test_an_invalid_epoch_is_ignored(value: str) -> None:
    stream = StreamClient("c", 1, lambda: 0.5)
    asked(stream, value)
    assert stream.connected
    assert stream.epoch is None


def test_a_stream_without_events_asks_for_the_newest_again() -> None:
    """With since=0 the server would replay the whole log of an old channel."""
    stream = StreamClient("c", None, lambda: 0.5)
    for _ in range(2):
        target, answer = handshake(stream)
        assert target == "/channels/c/ws"
        assert stream.receive_data(answer, 0.0) == [Opened(None)]
        assert isinstance(stream.receive_data(b"", 1.0)[-1], Disconnected)
    _, answer = handshake(stream)
    events = stream.receive_data(answer + frame(1_000_000), 2.0)
    assert [event.sequence for event in events if isinstance(event, Delivered)] == [1_000_000]
    stream.receive_data(b"", 3.0)
    assert handshake(stream)[0] == "/channels/c/ws?since=1000000"


def test_notifications_have_no_sequence() -> None:
    stream = StreamClient(None, None, lambda: 0.5)
    target, answer = handshake(stream)
    assert target == "/notifications/ws"
    events = stream.receive_data(answer + text_frame(b'{"kind":"x"}'), 0.0)
    assert events == [Opened(None), Notified('{"kind":"x"}')]


def test_pings_are_answered() -> None:
    stream = opened()
    assert stream.receive_data(ping_frame(b"p"), 1.0) == []
    assert stream.data_to_send()[:1] == b"\x8a"


@pytest.mark.parametrize("code", list(CloseCode))
def test_every_close_code_has_the_documented_effect(code: CloseCode) -> None:
    stream = opened()
    (event,) = stream.receive_data(close_frame(code, "why"), 1.0)
    if code is CloseCode.TOKEN_ENDED:
        assert isinstance(event, Disconnected)
        assert event.needs_token
    elif CLOSE_CODES[code].action == "terminal":
        assert event == Ended(code, "why")
    else:
        assert isinstance(event, Disconnected)
    assert not stream.connected


def test_the_advised_delay_is_a_minimum() -> None:
    stream = opened()
    (event,) = stream.receive_data(close_frame(1012, "server restarting; reconnect in 3500 ms"), 1.0)
    assert isinstance(event, Disconnected)
    assert 3.5 <= event.retry_secs <= 3.75


def test_silence_ends_a_connection() -> None:
    stream = StreamClient("c", 0, lambda: 0.5)
    _, answer = handshake(stream, 10.0)
    assert stream.next_deadline() == 10.0 + CLIENT_HANDSHAKE_SECS
    stream.receive_data(answer, 11.0)
    assert stream.next_deadline() == 11.0 + CLIENT_SILENCE_SECS
    assert stream.handle_deadline(70.0) == []
    assert isinstance(stream.handle_deadline(71.0)[0], Disconnected)
    assert stream.next_deadline() is None


@pytest.mark.parametrize(("status", "final"), [(404, True), (403, True), (429, False), (503, False), (401, False)])
def test_a_refused_upgrade(status: int, final: bool) -> None:
    stream = StreamClient("c", 0, lambda: 0.5)
    stream.connect("server:80", "token", 0.0)
    head = f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\n{{}}".encode()
    (event,) = stream.receive_data(head, 0.0)
    if final:
        assert event == Ended(status, "unknown", "unknown")
        return
    assert isinstance(event, Disconnected)
    assert event.needs_token == (status == 401)
    assert event.retry_secs >= (0 if status == 401 else 7)
    if status == 401:  # and once more with the new token: now it is final
        stream.connect("server:80", "new", 0.0)
        assert stream.receive_data(head, 0.0) == [Ended(401, "unknown", "unknown")]


@pytest.mark.parametrize(("status", "final"), [(403, True), (401, False)])
def test_a_refusal_that_ends_with_the_connection_is_one(status: int, final: bool) -> None:
    stream = StreamClient("c", 0, lambda: 0.5)
    stream.connect("server:80", "token", 0.0)
    assert stream.receive_data(f"HTTP/1.1 {status} X\r\nConnection: close\r\n\r\n{{}}".encode(), 0.0) == []
    (event,) = stream.receive_data(b"", 0.0)
    assert isinstance(event, Ended if final else Disconnected)
    assert final or getattr(event, "needs_token", False)


def test_a_broken_frame_is_not_the_end_of_the_stream() -> None:
    stream = opened()
    (event,) = stream.receive_data(b"\x81\x02\xff\xff", 1.0)
    assert isinstance(event, Disconnected)


def ends_of(stream: StreamClient, code: CloseCode, open_secs: float) -> list[float]:
    """The waits after eight connections that the server accepts, leaves quiet for so long and closes."""
    waits = []
    for _ in range(8):
        _, answer = handshake(stream, 0.0)
        stream.receive_data(answer, 0.0)
        (event,) = stream.receive_data(close_frame(code, "why"), open_secs)
        assert isinstance(event, Disconnected)
        waits.append(event.retry_secs)
    return waits


def test_a_stream_reconnects_at_once_after_its_token_expires() -> None:
    assert ends_of(StreamClient("c", 0, lambda: 0.5), CloseCode.TOKEN_ENDED, 43_200) == [0.0] * 8


def test_a_long_connection_resets_the_backoff() -> None:
    assert set(ends_of(StreamClient("c", 0, lambda: 0.5), CloseCode.INTERNAL_ERROR, 60)) == {0.125}


@pytest.mark.parametrize("code", [CloseCode.TOKEN_ENDED, CloseCode.INTERNAL_ERROR])
def test_a_server_that_accepts_and_closes_gets_a_backoff(code: CloseCode) -> None:
    waits = ends_of(StreamClient("c", 0, lambda: 0.5), code, 0.1)
    assert waits[1:] == sorted(waits[1:])
    assert waits[-1] == 7.5


@pytest.mark.parametrize("how", ["bytes", "end", "silence", "failure"])
def test_every_end_of_a_long_connection_resets_the_backoff(how: str) -> None:
    stream = StreamClient("c", 0, lambda: 0.5)
    for _ in range(6):
        stream.connect("server:80", "token", 0.0)
        stream.failed("refused", 0.0)
    _, answer = handshake(stream, 100.0)
    stream.receive_data(answer, 100.0)
    match how:
        case "bytes":
            (event,) = stream.receive_data(text_frame(b"no event"), 200.0)
        case "end":
            (event,) = stream.receive_data(b"", 200.0)
        case "silence":
            (event,) = stream.handle_deadline(200.0)
        case _:
            event = stream.failed("broken", 200.0)
    assert isinstance(event, Disconnected)
    assert event.retry_secs == 0.125


@given(st.binary(max_size=300))
def test_no_bytes_of_a_server_raise(data: bytes) -> None:
    for stream in (opened(), StreamClient("c", 0, lambda: 0.5)):
        if not stream.connected:
            stream.connect("server:80", "token", 0.0)
        stream.receive_data(data, 1.0)
        stream.receive_data(b"", 2.0)
        assert not stream.connected


def with_answer(*pieces: bytes) -> list[StreamEvent]:
    stream = StreamClient("c", 0, lambda: 0.5)
    stream.connect("server:80", "token", 0.0)
    stream.data_to_send()
    events: list[StreamEvent] = []
    for piece in pieces:
        events += stream.receive_data(piece, 0.0)
    return events


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"


@given(st.lists(st.integers(1, 500), max_size=6), st.integers(0, MAX_INTERIM_RESPONSES))
def test_interim_responses_before_the_upgrade_are_skipped(places: list[int], hints: int) -> None:
    """RFC 9110 15.2."""
    stream = StreamClient("c", 0, lambda: 0.5)
    answer = HINTS * hints + handshake(stream)[1] + frame(1)
    events: list[StreamEvent] = []
    for piece in cut(answer, places):
        if piece:
            events += stream.receive_data(piece, 1.0)
    assert [type(event) for event in events] == [Opened, Delivered]


ENDLESS = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
HTML = b"Content-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\nContent-Length: 0\r\n\r\n", "http://portal.example/"),
        (b"HTTP/1.1 301 Moved\r\nLocation: https://server/\r\n" + HTML, "redirects are not followed"),
        (b"HTTP/1.1 200 OK\r\n" + HTML, "text/html"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", "instead of the upgrade"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "instead of the upgrade"),
        (b"HTTP/1.1 404 Not Found\r\n" + HTML, "proxy or captive portal"),
        (b"HTTP/1.1 401 Unauthorized\r\n" + HTML, "proxy or captive portal"),
        (b"HTTP/1.1 502 Bad Gateway\r\n" + HTML, "HTTP 502"),
        (b"HTTP/1.1 511 Network Authentication Required\r\n" + HTML, "HTTP 511"),
        (ENDLESS + b"4\r\nabcd\r\n" * 20_000, "portal"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * MAX_RESPONSE_HEAD_BYTES, "head is too large"),
        (HINTS * (MAX_INTERIM_RESPONSES + 1), "interim responses"),
        (b"<html>captive</html>\r\n\r\n", "not a WebSocket response"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "not a WebSocket response"),
    ],
)  # fmt: skip
def test_responses_of_proxies_do_not_end_a_stream(answer: bytes, why: str) -> None:
    """A portal disappears after a login, a proxy's error page when its server is back."""
    (event,) = with_answer(answer)
    assert isinstance(event, Disconnected)
    assert why in event.reason
    assert not event.needs_token
    assert event.retry_secs > 0


def test_an_error_of_the_server_ends_a_stream() -> None:
    body = (
        b'{"error":"not_found","message":"no such channel","details":[{"field":"channel_id","message":"is unknown"}]}'
    )
    head = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert with_answer(HINTS, head, body) == [
        Ended(404, "not_found: no such channel (channel_id is unknown)", "not_found")
    ]


@given(
    st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 1", HINTS, b"HTTP/1.1 404 X\r\n\r\n"]),
    st.binary(max_size=300),
)
def test_any_bytes_in_place_of_a_response_are_events(begin: bytes, data: bytes) -> None:
    with_answer(begin + data, b"")


@given(st.binary(max_size=300))
def test_any_bytes_on_an_open_stream_are_events(data: bytes) -> None:
    opened().receive_data(data, 1.0)

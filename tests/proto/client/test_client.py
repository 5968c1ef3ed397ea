"""The client's decisions without a network: what is asked, what is new, when to come back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.client import (
    Backoff,
    ConnectionBroken,
    Delivered,
    Disconnected,
    Ended,
    HttpClient,
    Notified,
    Opened,
    Session,
    Step,
    StreamClient,
    StreamEvent,
    api_error,
    next_step,
)
from openguild_proto.client.http import ClientResponse
from openguild_proto.client.stream import HANDSHAKE_SECS, SILENCE_SECS
from openguild_proto.errors import LocalProtocolError
from openguild_proto.http.message import Response
from openguild_proto.ws.close_codes import CLOSE_CODES, CloseCode
from openguild_proto.ws.frames import close_frame, ping_frame, text_frame
from tests.support.wire import connection, cut, drive

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: application/json\r\n\r\nhello"


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


# --- HTTP ----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, len(ANSWER) - 1)))
def test_an_answer_may_be_cut_anywhere(places: list[int]) -> None:
    http = HttpClient("h")
    http.send_request("GET", "/x")
    answers = [http.receive_data(piece) for piece in cut(ANSWER, places)]
    assert answers[:-1] == [None] * (len(answers) - 1)
    assert answers[-1] is not None
    assert (answers[-1].status, answers[-1].body, answers[-1].header("content-type")) == (
        200, b"hello", "application/json",
    )  # fmt: skip
    assert http.reusable


def test_a_connection_that_ends_early_is_broken() -> None:
    http = HttpClient("h")
    http.send_request("GET", "/x")
    with pytest.raises(LocalProtocolError):
        http.send_request("GET", "/y")
    assert http.receive_data(ANSWER[:-2]) is None
    with pytest.raises(ConnectionBroken):
        http.receive_data(b"")


def test_a_closing_answer_ends_the_connection() -> None:
    http = HttpClient("h")
    http.send_request("POST", "/x", (("content-type", "application/json"),), b"{}")
    assert http.receive_data(ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) is not None
    assert not http.reusable


@pytest.mark.parametrize(
    ("status", "repeatable", "step"),
    [
        (200, False, Step.DONE), (401, True, Step.REFRESH), (503, True, Step.RETRY), (503, False, Step.FAIL),
        (429, True, Step.RETRY), (409, True, Step.FAIL), (404, True, Step.FAIL), (500, True, Step.RETRY),
    ],
)  # fmt: skip
def test_what_an_answer_means(status: int, repeatable: bool, step: Step) -> None:
    answer = ClientResponse(status, (("retry-after", "3"),), b"")
    assert next_step(answer, repeatable=repeatable) == (step, 3.0 if step is Step.RETRY else None)


def test_errors_are_typed_even_when_the_body_is_not_ours() -> None:
    ours = api_error(ClientResponse(409, (), b'{"error":"nonce_reused","message":"m","request_id":"r"}'))
    assert (ours.status, ours.code, ours.request_id) == (409, "nonce_reused", "r")
    assert api_error(ClientResponse(502, (), b"<html>")).code == "unknown"


def test_a_session_is_stale_before_its_token_ends() -> None:
    body = Response.json(
        {
            "access_token": "a", "access_expires_at": "2026-01-01T00:10:00Z", "refresh_token": "r",
            "refresh_expires_at": "2026-02-01T00:00:00Z",
        }
    ).body  # fmt: skip
    end = 1_767_226_200_000
    session = Session.of(body, end - 600_000)
    assert not session.is_stale(end - 60_001)
    assert session.is_stale(end - 60_000)
    assert not Session.of(body, end - 10_000).is_stale(end - 1_001), "a short life is refreshed at its last tenth"


# --- backoff -------------------------------------------------------------------------------------------


@given(st.floats(0, 0.999), st.floats(0, 100), st.integers(0, 40))
def test_backoff_never_undercuts_advice_and_has_a_ceiling(draw: float, advised: float, failures: int) -> None:
    backoff = Backoff(lambda: draw, base_secs=0.25, max_secs=15)
    for _ in range(failures):
        assert 0 <= backoff.next_delay() < 15
    assert advised <= backoff.next_delay(advised) <= advised + 15
    backoff.reset()
    assert backoff.next_delay() <= 0.25


# --- streams -------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 400), max_size=6))
def test_events_come_in_order_and_once_however_the_bytes_are_cut(places: list[int]) -> None:
    stream = opened()
    data = b"".join(frame(sequence) for sequence in (1, 2, 2, 3, 1, 4))
    events: list[StreamEvent] = []
    for piece in cut(data, places):
        if piece:
            events += stream.receive_data(piece, 1.0)
    assert [event.sequence for event in events if isinstance(event, Delivered)] == [1, 2, 3, 4]
    assert (stream.position, stream.repeats, stream.holes) == (4, 2, 0)


def test_a_hole_ends_the_connection_and_the_next_one_asks_for_it() -> None:
    stream = opened()
    events = stream.receive_data(frame(1) + frame(3), 1.0)
    assert isinstance(events[-1], Disconnected)
    assert not stream.connected
    assert handshake(stream)[0] == "/channels/c/ws?since=1"


def test_an_empty_channel_is_resumed_from_its_beginning() -> None:
    stream = StreamClient("c", None, lambda: 0.5)
    target, answer = handshake(stream)
    assert target == "/channels/c/ws"
    stream.receive_data(answer, 0.0)
    stream.receive_data(b"", 1.0)
    assert handshake(stream)[0] == "/channels/c/ws?since=0"


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
def test_every_close_code_is_taken_as_the_contract_says(code: CloseCode) -> None:
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


def test_the_advice_of_a_restart_is_a_floor() -> None:
    stream = opened()
    (event,) = stream.receive_data(close_frame(1012, "server restarting; reconnect in 3500 ms"), 1.0)
    assert isinstance(event, Disconnected)
    assert 3.5 <= event.retry_secs <= 3.75


def test_silence_ends_a_connection() -> None:
    stream = StreamClient("c", 0, lambda: 0.5)
    _, answer = handshake(stream, 10.0)
    assert stream.next_deadline() == 10.0 + HANDSHAKE_SECS
    stream.receive_data(answer, 11.0)
    assert stream.next_deadline() == 11.0 + SILENCE_SECS
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
        assert event == Ended(status, "{}")
        return
    assert isinstance(event, Disconnected)
    assert event.needs_token == (status == 401)
    assert event.retry_secs >= (0 if status == 401 else 7)
    if status == 401:  # and once more with the new token: now it is final
        stream.connect("server:80", "new", 0.0)
        assert stream.receive_data(head, 0.0) == [Ended(401, "{}")]


@given(st.binary(max_size=300))
def test_no_bytes_of_a_server_raise(data: bytes) -> None:
    for stream in (opened(), StreamClient("c", 0, lambda: 0.5)):
        if not stream.connected:
            stream.connect("server:80", "token", 0.0)
        stream.receive_data(data, 1.0)
        stream.receive_data(b"", 2.0)
        assert not stream.connected

"""One response at a time, for any split of its bytes; broken connections."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openguild_proto.client import (
    ClientResponse,
    ConnectionBroken,
    HttpClient,
    Step,
    api_error,
    next_step,
    proxy_answer_reason,
)
from openguild_proto.errors import LocalProtocolError
from openguild_proto.limits import MAX_FREE_CHUNKS, MAX_INTERIM_RESPONSES, MAX_RESPONSE_HEAD_BYTES, MIN_CHUNK_BYTES
from tests.support.wire import cut

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: application/json\r\n\r\nhello"


@given(st.lists(st.integers(1, len(ANSWER) - 1)))
def test_a_response_may_be_split_anywhere(places: list[int]) -> None:
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
    unanswered = HttpClient("h")
    unanswered.send_request("GET", "/x")
    with pytest.raises(ConnectionBroken, match=r"^the connection ended$"):
        unanswered.receive_data(b"")
    http = HttpClient("h")
    http.send_request("GET", "/x")
    with pytest.raises(LocalProtocolError):
        http.send_request("GET", "/y")
    assert http.receive_data(ANSWER[:-2]) is None
    with pytest.raises(ConnectionBroken, match=r"^the connection ended$"):
        http.receive_data(b"")


@pytest.mark.parametrize(
    ("method", "target", "headers", "fault"),
    [
        ("GET", "/x", (("authorization", "Bearer secret\n"),), "Illegal header value"),
        ("GET", "/x", (("authorization", "Bearer it's secret\n"),), "Illegal header value"),
        ("GET", "/x", (("a b", "c"),), "Illegal header name"),
        ("GET", "/x", (("a", "secret\x01"),), "Illegal header value"),
        ("GET", "/x", ((b"Transfer-Encoding", b"chunked"),), "headers are pairs of a name and a value, both str"),
        ("GET", "/x", (("a", 5),), "headers are pairs of a name and a value, both str"),
        ("GET", "/x", (("a",),), "headers are pairs of a name and a value, both str"),
        ("GET", "/x", (("a", "b", "c"),), "headers are pairs of a name and a value, both str"),
        (None, "/x", (), "cannot convert"),
        ("GET", "/x y", (), "Illegal target characters"),
        ("GET", "/tee?q=größe", (), "not ASCII"),
        ("POST", "/x", (("Transfer-Encoding", "chunked"),), "the header transfer-encoding is the connection's own"),
        ("G T", "/x", (), "Illegal method characters"),
    ],
)
def test_a_request_that_cannot_be_sent_changes_nothing(method: Any, target: str, headers: Any, fault: str) -> None:
    http = HttpClient("h")
    with pytest.raises(LocalProtocolError, match=f"^the request cannot be sent: {fault}") as misuse:
        http.send_request(method, target, headers)
    assert "secret" not in str(misuse.value)
    assert http.send_request("GET", "/y").startswith(b"GET /y HTTP/1.1\r\n")


@pytest.mark.parametrize("body", ["text", None])
def test_a_body_that_is_no_bytes_changes_nothing(body: Any) -> None:
    http = HttpClient("h")
    with pytest.raises(LocalProtocolError, match="a body is bytes"):
        http.send_request("POST", "/x", body=body)
    assert http.send_request("POST", "/x", body=b"text").endswith(b"\r\n\r\ntext")


def test_no_bytes_follow_the_end_of_the_stream() -> None:
    http = HttpClient("h")
    http.send_request("GET", "/x")
    with pytest.raises(ConnectionBroken):
        http.receive_data(b"")
    with pytest.raises(LocalProtocolError, match="the stream has ended"):
        http.receive_data(ANSWER)


def test_a_closing_response_ends_the_connection() -> None:
    http = HttpClient("h")
    http.send_request("POST", "/x", (("content-type", "application/json"),), b"{}")
    assert http.receive_data(ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) is not None
    assert not http.reusable


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(size: int) -> bytes:
    return b"%x\r\n%b\r\n" % (size, b"x" * size)


def test_a_body_may_have_few_chunks_of_any_size_and_any_number_of_large_ones() -> None:
    http = HttpClient("h")
    for sizes in ([1] * MAX_FREE_CHUNKS, [1] * MAX_FREE_CHUNKS, [MIN_CHUNK_BYTES] * (3 * MAX_FREE_CHUNKS)):
        http.send_request("GET", "/x")
        answer = http.receive_data(CHUNKED + b"".join(map(chunk, sizes)) + b"0\r\n\r\n")
        assert answer is not None
        assert len(answer.body) == sum(sizes)


def test_a_body_of_very_many_small_chunks_breaks_the_connection() -> None:
    """Each takes about as long as a thousand bytes: a body of 32 MiB in chunks of one byte takes minutes."""
    http = HttpClient("h")
    http.send_request("GET", "/x")
    assert http.receive_data(CHUNKED + chunk(1) * MAX_FREE_CHUNKS) is None
    with pytest.raises(ConnectionBroken, match="too many chunks"):
        http.receive_data(chunk(1) * (MAX_FREE_CHUNKS // MIN_CHUNK_BYTES + 1) + b"0\r\n\r\n")


def test_interim_responses_are_skipped_and_bounded() -> None:
    """RFC 9110 15.2: 100 and 103 come before the answer; nothing may come without an end."""
    http = HttpClient("h")
    http.send_request("GET", "/x")
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    answer = http.receive_data(b"HTTP/1.1 100 Continue\r\n\r\n" + 3 * hints + ANSWER)
    assert answer is not None
    assert answer.status == 200
    http.send_request("GET", "/y")
    assert http.receive_data(hints * MAX_INTERIM_RESPONSES) is None
    with pytest.raises(ConnectionBroken, match="interim responses"):
        http.receive_data(hints)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "."),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "too large"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2000001\r\n" + b"x" * 0x2000001, "too large"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * MAX_RESPONSE_HEAD_BYTES + b"z" * 100, "."),
        (b"<html>captive</html>\r\n\r\n", "."),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "."),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "."),
    ],
)
def test_an_invalid_response_breaks_the_connection(data: bytes, why: str) -> None:
    http = HttpClient("h")
    http.send_request("GET", "/x")
    with pytest.raises(ConnectionBroken, match=why):
        http.receive_data(data)


def test_extra_bytes_do_not_answer_the_next_request() -> None:
    http = HttpClient("h")
    http.send_request("GET", "/x")
    assert http.receive_data(ANSWER + ANSWER) is not None
    assert not http.reusable


def test_trailers_are_ignored() -> None:
    http = HttpClient("h")
    http.send_request("GET", "/x")
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
    answer = http.receive_data(head + b"5;a=b\r\nhello\r\n0\r\nX: y\r\nContent-Length: 9\r\n\r\n")
    assert answer is not None
    assert (answer.body, answer.header("x")) == (b"hello", None)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_response_or_break_the_connection(data: bytes) -> None:
    for begin in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 1", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        http = HttpClient("h")
        http.send_request("GET", "/x")
        with contextlib.suppress(ConnectionBroken):
            http.receive_data(begin + data)
            http.receive_data(b"")


JSON = ("content-type", "application/json")
FOREIGN = [
    (302, (("location", "http://portal.example/login"),), b"", "http://portal.example/login"),
    (308, (("location", "https://h/x"), JSON), b"{}", "redirects are not followed"),
    (304, (), b"", "HTTP 304 to nowhere"),
    (200, (("content-type", "text/html; charset=utf-8"),), b"<html>", "text/html"),
    (200, (), b"hello", "no content type"),
    (404, (("content-type", "text/html"),), b"default backend", "proxy or captive portal"),
    (401, (("content-type", "text/html"),), b"proxy login", "proxy or captive portal"),
    (200, (JSON, ("content-encoding", "gzip")), b"\x1f\x8b", "gzip"),
    (302, (("location", "http://x/\r\n\x1b[2J" + "y" * 9_000),), b"", "y"),
]


@pytest.mark.parametrize(("status", "headers", "body", "why"), FOREIGN)
def test_responses_of_proxies_are_recognised(
    status: int, headers: tuple[tuple[str, str], ...], body: bytes, why: str
) -> None:
    response = ClientResponse(status, headers, body)
    reason = proxy_answer_reason(response)
    assert reason is not None
    assert why in reason
    assert reason.isprintable()
    assert len(reason) < 500
    assert next_step(response, repeatable=True) == (Step.RETRY, None)
    assert next_step(response, repeatable=False) == (Step.FAIL, None)


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, (JSON,), b"{}"), (204, (), b""), (200, (("content-type", "text/plain; charset=utf-8"),), b"ok"),
        (400, (("content-type", "Application/JSON;x=y"),), b"{}"), (404, (), b""), (404, (), b' {"error":"x"}'),
        (200, (JSON, ("content-encoding", "identity")), b"{}"),
        (502, (("content-type", "text/html"),), b"<html>"), (429, (("content-type", "text/html"),), b"<html>"),
    ],
)  # fmt: skip
def test_responses_of_the_server_are_accepted(status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> None:
    assert proxy_answer_reason(ClientResponse(status, headers, body)) is None


def test_the_error_of_a_proxy_is_described() -> None:
    error = api_error(ClientResponse(502, (("content-type", "text/html"),), b"<html>\xff"))
    assert (error.status, error.code, error.message) == (
        502,
        "unknown",
        "the response is not an error of the server, but text/html",
    )


def test_the_length_of_an_answer_to_head_is_not_that_of_a_body() -> None:
    http = HttpClient("h", max_body_bytes=10)
    http.send_request("HEAD", "/")
    answer = http.receive_data(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n")
    assert answer is not None
    assert answer.body == b""
    http.send_request("GET", "/")
    with pytest.raises(ConnectionBroken, match="too large"):
        http.receive_data(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n")


def test_a_response_in_single_bytes_takes_the_memory_of_its_bytes() -> None:
    """Another server may send its answer so; the bound of bytes is to be one of memory."""
    body = bytes(range(256)) * 80
    http = HttpClient("h")
    http.send_request("GET", "/x")
    http.receive_data(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
    tracemalloc.start()
    try:
        for place in range(len(body) - 1):
            assert http.receive_data(body[place : place + 1]) is None
        assert tracemalloc.get_traced_memory()[0] < 2 * len(body)
    finally:
        tracemalloc.stop()
    answer = http.receive_data(body[-1:])
    assert answer is not None
    assert answer.body == body

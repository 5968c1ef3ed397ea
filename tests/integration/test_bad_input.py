"""Bad input gets a typed error or a closed connection within a deadline, never a 500, and nothing is stored."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.busy import starved_secs
from tests.support.chat import Chat, User, texts
from tests.support.raw import HOST, UPGRADE, RawClient, ask
from tests.support.server import ServerProcess

SECURITY = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
LONE_SURROGATE = rb'{"content":"\ud800"}'
REFUSED_BODIES = {
    "empty": (b"", "invalid_json"),
    "not json": (b"{", "invalid_json"),
    "trailing data": (b"{} x", "invalid_json"),
    "not utf-8": (b'{"content":"\xff"}', "invalid_json"),
    "lone surrogate": (LONE_SURROGATE, "invalid_json"),
    "NaN": (b'{"content":NaN}', "invalid_json"),
    "200 deep": (b'{"content":' + b"[" * 200 + b"]" * 200 + b"}", "invalid_json"),
    "array": (b"[]", "validation_error"),
    "missing member": (b"{}", "validation_error"),
    "wrong type": (b'{"content":1}', "validation_error"),
    "null": (b'{"content":null}', "validation_error"),
    "repeated member": (b'{"content":"a","content":"b"}', "validation_error"),
    "NUL": (b'{"content":"a\\u0000b"}', "validation_error"),
    "blank": (b'{"content":"   "}', "validation_error"),
    "too long": (json.dumps({"content": "x" * 4001}).encode(), "validation_error"),
    "bad nonce": (b'{"content":"x","nonce":"with space"}', "validation_error"),
    "long nonce": (json.dumps({"content": "x", "nonce": "n" * 65}).encode(), "validation_error"),
}


@pytest.mark.parametrize("name", REFUSED_BODIES)
def test_a_refused_message_body_stores_nothing(name: str, alice: User, channel: str) -> None:
    body, code = REFUSED_BODIES[name]
    answer = alice.request(
        "POST", f"/channels/{channel}/messages", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    problem = answer.json()
    assert (problem["error"], problem["request_id"]) == (code, answer.headers["x-request-id"])
    assert problem["message"]
    if code == "validation_error":
        assert problem["details"][0]["field"]
    assert alice.history(channel) == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/channels/not-a-uuid/events", 400, "validation_error"),
        ("GET", "/channels/00000000-0000-4000-8000-000000000000/events", 404, "not_found"),
        ("GET", "/channels/{channel}/events?limit=abc", 400, "validation_error"),
        ("GET", "/channels/{channel}/events?limit=1&limit=2", 400, "validation_error"),
        ("GET", "/channels/{channel}/events?limt=5", 400, "validation_error"),
        ("GET", "/channels/{channel}/events?since=1&before=2", 400, "validation_error"),
        ("GET", "/channels/{channel}/events?since=99999999999999999999", 400, "invalid_since"),
        ("GET", "/channels/{channel}/events?since=%ff", 400, "validation_error"),
        ("GET", "/no/such/route", 404, "not_found"),
        ("GET", "/client/v1/health", 404, "not_found"),
        ("PUT", "/guilds", 405, "method_not_allowed"),
        ("GET", "/channels/{channel}/ws", 426, "upgrade_required"),
        ("POST", "/federation/transactions", 501, "not_implemented"),
        ("GET", "/mls/key-packages", 501, "not_implemented"),
        ("POST", "/mls/key-packages/alice/rotate", 501, "not_implemented"),
    ],
)
def test_every_refusal_has_the_typed_body(
    method: str, path: str, status: int, code: str, alice: User, channel: str
) -> None:
    answer = alice.request(method, path.format(channel=channel))
    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert answer.headers["content-type"] == "application/json"
    if status == 405:
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"


def test_media_type_and_size(alice: User, channel: str) -> None:
    path = f"/channels/{channel}/messages"
    wrong = alice.request("POST", path, content=b'{"content":"x"}', headers={"content-type": "text/plain"})
    assert (wrong.status_code, wrong.json()["error"]) == (415, "unsupported_media_type")
    with RawClient(alice.chat.http.base_url.port or 0) as client:
        client.send(f"POST {path} HTTP/1.1\r\n".encode() + HOST + b"Content-Length: 2097153\r\n\r\n")
        assert client.answer().json()["error"] == "payload_too_large"  # refused by the head alone
        assert client.read_to_end() == b""
    longer = alice.request("POST", path, content=b" " * 65_537, headers={"content-type": "application/json"})
    assert (longer.status_code, longer.json()["error"]) == (413, "payload_too_large")
    assert alice.history(channel) == []


def test_authentication_comes_before_the_body(chat: Chat) -> None:
    answer = chat.http.post("/guilds", content=b"{", headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"  # PROTOCOL 3.6.2


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n", 200),
        (b"OPTIONS /any/path HTTP/1.1\r\n" + HOST + b"Origin: https://a.example\r\n\r\n", 200),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /users/me HTTP/1.1\r\n" + HOST + b"\r\n", 401),
        (b"GET /none HTTP/1.1\r\n" + HOST + b"\r\n", 404),
        (b"DELETE /health HTTP/1.1\r\n" + HOST + b"\r\n", 405),
        (b"POST /guilds HTTP/1.1\r\n" + HOST + b"Content-Length: 9999999\r\n\r\n", 413),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET /health HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (b"GET /health HTTP/2.0\r\n" + HOST + b"\r\n", 505),
        (b"POST /federation/transactions HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n", 501),
        (b"GET /channels/x/ws HTTP/1.1\r\n" + UPGRADE + b"\r\n", 401),
    ],
)
def test_headers_are_on_every_response(request_bytes: bytes, status: int, server: ServerProcess) -> None:
    answer = ask(server.port, request_bytes)
    assert answer.status == status
    assert {name: answer.headers[name] for name in SECURITY} == SECURITY
    assert len(answer.headers["x-request-id"]) == 36
    if status >= 400:
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_request_id_is_echoed_when_it_is_harmless(server: ServerProcess) -> None:
    for given, echoed in (("abc-1.2:3_X", True), ("a" * 128, True), ("a" * 129, False), ("b c", False), ("<b>", False)):
        answer = ask(server.port, b"GET /health HTTP/1.1\r\n" + HOST + f"X-Request-Id: {given}\r\n\r\n".encode())
        assert (answer.headers["x-request-id"] == given) is echoed


def test_preflight_admits_the_headers_a_browser_needs(server: ServerProcess) -> None:
    answer = ask(server.port, b"OPTIONS /guilds HTTP/1.1\r\n" + HOST + b"Origin: https://chat.example\r\n\r\n")
    allowed = answer.headers["access-control-allow-headers"].split(", ")
    assert {"authorization", "content-type", "x-request-id", "x-device-id", "idempotency-key"} == set(allowed)
    assert int(answer.headers["access-control-max-age"]) > 0
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["vary"]


def test_headers_of_a_101(alice: User, channel: str, server: ServerProcess) -> None:
    with RawClient(server.port) as client:
        token = f"Authorization: Bearer {alice.token}\r\n\r\n".encode()
        client.send(f"GET /channels/{channel}/ws HTTP/1.1\r\n".encode() + UPGRADE + token)
        answer = client.answer()
    assert answer.status == 101
    assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 1.3
    assert {name: answer.headers[name] for name in SECURITY} == SECURITY
    assert answer.headers["x-request-id"]


def test_pipelined_requests_are_answered_in_order(server: ServerProcess) -> None:
    with RawClient(server.port) as client:
        client.send((b"GET /health HTTP/1.1\r\n" + HOST + b"\r\nGET /none HTTP/1.1\r\n" + HOST + b"\r\n") * 5)
        assert [client.answer().status for _ in range(10)] == [200, 404] * 5


def test_a_half_closed_client_still_gets_its_answer(server: ServerProcess) -> None:
    with RawClient(server.port) as client:
        client.send(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.answer().body == b"ok"
        assert client.read_to_end() == b""


def test_nobody_waits_for_the_pipelines_of_others(server: ServerProcess) -> None:
    flood = (b"GET /live HTTP/1.1\r\n" + HOST + b"\r\n") * 1_000
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(RawClient(server.port)).send(flood)
        assert server.process is not None
        starved, started = starved_secs(server.process.pid), time.monotonic()
        assert server.status("/live") == 200
        waited = time.monotonic() - started - (starved_secs(server.process.pid) - starved)
    assert waited < 0.5


def test_head_is_answered_without_a_body(server: ServerProcess) -> None:
    with RawClient(server.port) as client:
        client.send(b"HEAD /version HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        head, _, rest = client.read_to_end().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert rest == b""


def test_expect_continue_and_a_chunked_body(alice: User, channel: str, server: ServerProcess) -> None:
    with RawClient(server.port) as client:
        client.send(
            f"POST /channels/{channel}/messages HTTP/1.1\r\nAuthorization: Bearer {alice.token}\r\n".encode()
            + HOST
            + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.answer().status == 100
        client.send(b'4\r\n{"co\r\nf\r\nntent":"piece"}\r\n0\r\n\r\n')
        assert client.answer().status == 200
    assert texts(alice.history(channel)) == ["piece"]


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory: Path = tmp_path_factory.mktemp("hasty")
    timeouts = {"HTTP__HEAD_TIMEOUT_SECS": 0.4, "HTTP__BODY_TIMEOUT_SECS": 0.4, "HTTP__IDLE_TIMEOUT_SECS": 0.4}
    with ServerProcess(directory, "--storage", "memory", **timeouts).start() as server:
        yield server


class TestDeadlines:
    """Slow heads, slow bodies and idle connections end within their deadlines (PROTOCOL 2.4)."""

    def test_a_slow_head_gets_408(self, hasty: ServerProcess) -> None:
        with RawClient(hasty.port) as client:
            client.send(b"GET /health HTT")
            assert client.answer().json()["error"] == "request_timeout"
            assert client.read_to_end() == b""
        assert hasty.metric("openguild_messaging_rejections_total", reason="request_timeout") >= 1

    def test_a_slow_body_gets_408(self, hasty: ServerProcess) -> None:
        with RawClient(hasty.port) as client:
            client.send(b"POST /users/register HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\n{")
            assert client.answer().status == 408
            assert client.read_to_end() == b""

    def test_a_connection_that_says_nothing_is_closed(self, hasty: ServerProcess) -> None:
        with RawClient(hasty.port) as client:
            assert client.read_to_end() == b""

    def test_an_idle_connection_is_closed(self, hasty: ServerProcess) -> None:
        with RawClient(hasty.port) as client:
            client.send(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")
            assert client.answer().status == 200
            assert client.read_to_end() == b""

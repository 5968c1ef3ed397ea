"""`/metrics` and the log of a working server (PROTOCOL 11.2, 11.3)."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from openguild_proto.canonical.keys import KeyRing, fingerprint, parse_seed
from openguild_proto.sessions.tokens import Claims, TokenAuthority
from openguild_runtime.embedded import EmbeddedNats
from tests.support.chat import User, receive
from tests.support.raw import HOST, ask
from tests.support.server import SIGNING_KEY, ServerProcess
from tests.support.waiting import PATIENCE_SECS, free_port, wait_until

SERIES = (
    "openguild_http_requests_total", "openguild_http_request_duration_seconds_bucket", "openguild_messaging_events_total",
    "openguild_messaging_rejections_total", "openguild_websocket_queue_depth_max", "openguild_db_ready",
    "openguild_websocket_connections", "openguild_connections", "openguild_subscribers", "openguild_websocket_lag_closes_total",
    "openguild_replay_events_total", "openguild_append_batch_size_bucket", "openguild_append_duration_seconds_bucket",
    "openguild_commit_queue_depth", "openguild_search_unindexed_messages",
    "openguild_nats_connected", "openguild_nats_reconnects_total", "openguild_gaps_found_total",
    "openguild_gap_events_backfilled_total", "openguild_delivery_seconds_bucket", "openguild_loop_stall_seconds_bucket",
    "openguild_draining", "openguild_build_info", "process_resident_memory_bytes", "process_open_fds",
)  # fmt: skip


def test_the_documented_series_are_there(server: ServerProcess, alice: User) -> None:
    alice.say(alice.channel(alice.guild()), "x")
    alice.get("/none")
    server.chat().http.get("/users/me")
    text = httpx.get(server.base_url + "/metrics", trust_env=False, verify=False)
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    for name in SERIES:
        assert f"\n{name}" in text.text, name
    assert server.metric("openguild_db_ready") == 1  # without any request to /ready
    assert 'le="0.005"' in text.text
    assert "_created" not in text.text, "when a series began is nobody's question"


def test_labels_are_templates(server: ServerProcess, alice: User) -> None:
    channel = alice.channel(alice.guild())
    before = server.metric("openguild_http_requests_total", route="unmatched", status="404")
    for path in (
        "/secret/scanner/path",
        "/wp-admin.php",
        f"/channels/{channel}/events",
        f"/client/v1/channels/{channel}/events",
    ):
        alice.get(path)
    text = httpx.get(server.base_url + "/metrics", trust_env=False, verify=False).text
    assert "scanner" not in text
    assert channel not in text
    assert server.metric("openguild_http_requests_total", route="unmatched", status="404") == before + 2
    assert server.metric("openguild_http_requests_total", route="/channels/{channel_id}/events", status="200") > 0
    assert (
        server.metric("openguild_http_requests_total", route="/client/v1/channels/{channel_id}/events", status="200")
        > 0
    )


def test_refusals_of_every_kind_are_counted(server: ServerProcess, alice: User) -> None:
    def count(status: int, route: str = "unmatched") -> float:
        return server.metric("openguild_http_requests_total", route=route, status=str(status))

    before = [count(400), count(405, "/health"), count(101, "/notifications/ws")]
    ask(server.port, b"GET / HTTP/1.1\r\n\r\n")
    ask(server.port, b"PUT /health HTTP/1.1\r\n" + HOST + b"\r\n")
    with alice.notifications():
        after = [count(400), count(405, "/health"), count(101, "/notifications/ws")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 1]


def test_a_rejection_is_counted_once(server: ServerProcess, alice: User) -> None:
    guild = alice.guild()
    reasons = {
        "channel_name_length": lambda: alice.post(f"/guilds/{guild}/channels", {"name": "x" * 65}),
        "guild_name_empty": lambda: alice.post("/guilds", {"name": ""}),
        "unauthorized": lambda: alice.chat.http.get("/guilds"),
    }
    for reason, attempt in reasons.items():
        before = server.metric("openguild_messaging_rejections_total", reason=reason)
        assert attempt().status_code in {400, 401}
        assert server.metric("openguild_messaging_rejections_total", reason=reason) == before + 1


def test_a_401_is_counted_and_logged_by_its_cause(server: ServerProcess, alice: User) -> None:
    """The answer does not name the cause; the log and the metrics do."""
    forged = TokenAuthority(KeyRing(parse_seed("A" * 43))).issue(Claims("s", "u", None, 0, 2**52))
    ours = TokenAuthority(KeyRing(parse_seed(SIGNING_KEY)))
    expired, nowhere = (ours.issue(Claims(str(uuid.uuid4()), "u", None, 0, until)) for until in (1, 2**52))
    leaver = alice.chat.user()
    leaver.ok(leaver.post("/sessions/revoke", {"refresh_token": leaver.refresh_token}))
    tokens = {
        "malformed": "x",
        "bad_signature": forged,
        "expired": expired,
        "unknown_session": nowhere,
        "revoked": leaver.token,
    }
    for cause, token in (("missing", None), *tokens.items()):
        before = server.metric("openguild_unauthorized_total", cause=cause)
        headers = {"x-request-id": f"why-{cause}"} | ({"authorization": f"Bearer {token}"} if token else {})
        answer = alice.chat.http.get("/guilds", headers=headers)
        assert (answer.status_code, answer.json()["message"]) == (401, "a valid bearer token is required")
        assert server.metric("openguild_unauthorized_total", cause=cause) == before + 1
    for name, cause in ((alice.name, "wrong_password"), ("nobody-of-this-name", "unknown_user")):
        login = {"identifier": name, "secret": "wrong horse", "device": {"device_id": "x"}}
        answer = alice.chat.http.post("/sessions/login", json=login, headers={"x-request-id": f"why-{cause}"})
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_credentials")
    before = server.metric("openguild_unauthorized_total", cause="bad_signature")
    with pytest.raises(ConnectionClosed), User(alice.chat, "", forged, "", "").socket("/gateway") as socket:
        while True:
            socket.recv(timeout=PATIENCE_SECS)
    assert server.metric("openguild_unauthorized_total", cause="bad_signature") == before + 1
    wanted = {*tokens, "missing", "wrong_password", "unknown_user"}

    def told() -> set[str]:
        records = {record.get("request_id", ""): record for record in server.records()}
        return {cause for cause in wanted if records.get(f"why-{cause}", {}).get("cause") == cause}

    wait_until(lambda: told() == wanted, what="the causes in the log")


def test_the_signing_key_is_named_and_not_shown(server: ServerProcess) -> None:
    name = fingerprint(parse_seed(SIGNING_KEY).public)
    assert server.metric("openguild_token_key_info", fingerprint=name, use="signing") == 1
    assert [record["signs"] for record in server.records() if record["message"] == "token keys"] == [name]


def test_outcomes_mean_what_they_say(server: ServerProcess, alice: User) -> None:
    channel = alice.channel(alice.guild())

    def outcomes() -> list[float]:
        names = ("delivered", "no_subscribers", "dropped")
        return [server.metric("openguild_messaging_events_total", outcome=name) for name in names]

    start = outcomes()
    alice.say(channel, "nobody listens")
    with alice.stream(channel) as stream:
        receive(stream, 1)
        alice.say(channel, "somebody does")
        receive(stream, 1)
    assert [now - then for now, then in zip(outcomes(), start, strict=True)] == [1, 1, 0]


def test_idle_channels_have_no_depth_series(server: ServerProcess, alice: User) -> None:
    channel = alice.channel(alice.guild())
    with alice.stream(channel) as stream:
        alice.say(channel, "x")
        receive(stream, 1)
        wait_until(lambda: server.metric("openguild_websocket_queue_depth", channel_id=channel) == 0)
        assert channel not in httpx.get(server.base_url + "/metrics", trust_env=False, verify=False).text


def test_metrics_may_have_a_listener_of_their_own(database_url: str, nats_server: EmbeddedNats, tmp_path: Path) -> None:
    port = free_port()
    server = ServerProcess(tmp_path, DATABASE_URL=database_url, METRICS__BIND_ADDR=f"127.0.0.1:{port}")
    with server.start():
        scrape = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, verify=False)
        assert "openguild_build_info" in scrape.text
        assert httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False, verify=False).status_code == 404
        assert server.status("/metrics") == 404
        assert server.stop() == 0


def test_metrics_can_be_switched_off(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, "--storage", "memory", "--metrics-enabled", "false").start() as server:
        assert server.status("/metrics") == 404


# --- logs ------------------------------------------------------------------------------------------


def test_every_line_is_json_and_requests_carry_their_id(database_url: str, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, DATABASE_URL=database_url)
    with server.start():
        chat = server.chat()
        alice = chat.user("alice \"quoted\" 'name'")
        channel = alice.channel(alice.guild())
        alice.request("GET", f"/channels/{channel}/events?limit=1", headers={"x-request-id": "pivot-on-me"})
        alice.request("GET", "/none", headers={"x-request-id": "pivot-404"})
        alice.request("TOKEN-OF-MINE", "/none", headers={"x-request-id": "pivot-other"})
        with alice.socket(f"/channels/{channel}/ws", access_token=alice.token):
            pass
        assert server.stop() == 0
    records = server.records()
    for record in records:
        assert {"timestamp", "level", "target", "message"} <= record.keys()
    by_id = {record["request_id"]: record for record in records if "request_id" in record}
    access = by_id["pivot-on-me"]
    assert (access["level"], access["message"], access["method"]) == ("INFO", "request completed", "GET")
    assert (access["route"], access["status"]) == ("/channels/{channel_id}/events", 200)
    assert access["latency_ms"] >= 0
    assert by_id["pivot-404"]["status"] == 404
    assert by_id["pivot-other"]["method"] == "other", "a word that the client chose is not written"
    completed = [record for record in records if record["message"] == "request completed"]
    assert all(record["request_id"] for record in completed)
    raw = server.log_path.read_text()
    for secret in (
        alice.token,
        alice.refresh_token,
        "correct horse",
        database_url.partition("@")[0].rpartition(":")[2],
    ):
        assert secret not in raw


def test_compact_logs_are_one_line_each(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, "--storage", "memory", LOG_FORMAT="compact").start() as server:
        server.status("/health")
        assert server.stop() == 0
        lines = server.log_path.read_text().splitlines()
    completed = (
        r" INFO openguild\.http: request completed method=GET route=/health status=200 "
        r"latency_ms=[0-9.]+ client=127\.0\.0\.1 request_id=[-0-9a-f]{36}$"
    )
    assert any(re.search(completed, line) for line in lines)
    with pytest.raises(ValueError):
        json.loads(lines[0])


def test_memory_storage_warns_at_start_and_in_ready(tmp_path: Path) -> None:
    """PROTOCOL 11.4.5."""
    with ServerProcess(tmp_path, "--storage", "memory").start() as server:
        ready = httpx.get(server.base_url + "/ready", trust_env=False, verify=False).json()
        assert "lost at a restart" in ready["components"][0]["details"]
        assert any(
            record["level"] == "WARNING" and "memory storage" in record["message"] for record in server.records()
        )

"""Clients that misbehave: refused requests of every kind, and connections that stay open."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.incidents.conftest import Incident, Site, pod, repeated
from tests.support.chat import User
from tests.support.databases import Databases
from tests.support.raw import RawClient
from tests.support.waiting import wait_until

STRICT = {
    "TRUSTED_PROXIES": "127.0.0.1", "MESSAGING__MAX_MESSAGES_PER_USER_PER_WINDOW": 20,
    "MESSAGING__MAX_MESSAGES_PER_IP_PER_WINDOW": 60, "WEBSOCKET__MAX_CONNECTIONS_PER_USER": 2, "HTTP__IDLE_TIMEOUT_SECS": 3600,
}  # fmt: skip
SCRIPT, COPY, FORGER, BOT, TABS = (f"203.0.113.{number}" for number in range(1, 6))


@pytest.fixture(scope="module")
def strict(databases: Databases, module_directory: Path) -> Iterator[Site]:
    """Run a server with low limits, behind a load balancer."""
    with databases.database() as url:
        server = pod(module_directory, DATABASE_URL=url, **STRICT)
        with server.start():
            yield Site(server, url)
            assert server.stop() == 0, server.tail()


UPGRADE = {
    "upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}  # fmt: skip


def client(site: Site, address: str, name: str) -> User:
    """Return a member of the guild who connects from this address."""
    chat = site.server.chat()
    chat.http.headers["x-forwarded-for"] = address
    user = chat.user(name)
    user.join(site.alice.invite(site.guild))
    return user


def lines(said: str) -> list[dict[str, Any]]:
    """Parse a table of jq."""
    found: list[dict[str, Any]] = json.loads(said)
    return found


def test_somebody_tries(strict: Site, walk: Callable[..., Incident]) -> None:
    incident = walk("suspicious-requests", strict.server)
    path = f"/channels/{strict.channel}/messages"
    script = [client(strict, SCRIPT, f"script-{number}") for number in range(4)]
    copied, forger = client(strict, COPY, "carl-whose-token-was-copied"), client(strict, FORGER, "forger")
    for user in script:
        for _ in range(18):
            user.post(path, {"content": "x"})
    for _ in range(3):
        assert forger.post(path, {"content": "x", "sender": strict.alice.user_id}).status_code == 403
    newest = stolen = copied.refresh_token
    for _ in range(2):
        newest = copied.chat.http.post("/sessions/refresh", json={"refresh_token": newest}).json()["refresh_token"]
    assert copied.chat.http.post("/sessions/refresh", json={"refresh_token": stolen}).status_code == 401

    for reason in ("ip_rate_limit", "sender_mismatch", "refresh_token_reused"):
        incident.fires("OpenGuildSuspiciousRejections", reason=reason, instance=strict.instance)
    told = {line["rejection"]: line for line in lines(incident.ask())}
    assert {rejection: line["client"] for rejection, line in told.items()} == {
        "ip_rate_limit": SCRIPT, "refresh_token_reused": COPY, "sender_mismatch": FORGER,
    }  # fmt: skip
    assert told["sender_mismatch"]["requests"] == 3
    named = incident.try_row("logs | jq 'select(.message")
    assert copied.user_id in named
    incident.ends("OpenGuildSuspiciousRejections")
    wait_until(lambda: lines(incident.ask(5)) == [], what=lambda: incident.ask(5))


def test_requests_are_refused_and_connections_stay(strict: Site, walk: Callable[..., Incident]) -> None:
    """A bot ignores Retry-After, another one opens a stream per second, and a pool of connections is never closed."""
    rejections, stuck = walk("rejections", strict.server), walk("connections-stuck", strict.server)
    bot, tabs = client(strict, BOT, "bot"), client(strict, TABS, "tabs")

    def flood() -> None:
        for _ in range(3):
            bot.post(f"/channels/{strict.channel}/messages", {"content": "x"})
        bot.post(f"/channels/{strict.channel}/messages", {"content": ""})
        assert tabs.request("GET", f"/channels/{strict.channel}/ws", headers=UPGRADE).status_code == 429

    with ExitStack() as opened:
        for _ in range(300):
            kept = opened.enter_context(RawClient(strict.server.port))
            kept.send(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
            assert kept.answer().status == 200
        with RawClient(strict.server.port) as faulty:
            faulty.send(b"GET / HTTP/1.1\r\n\r\n")
            assert faulty.answer().status == 400
        with tabs.stream(strict.channel), tabs.stream(strict.channel), repeated(flood):
            rejections.fires("OpenGuildRejections", reason="message_empty")
            rejections.fires("OpenGuildConnectionLimit")
            rejections.fires("OpenGuildMessageRateLimit")
            told = {line["refused"]: line["client"] for line in lines(rejections.ask())}
            assert told["message_rate_limit"] == told["message_empty"] == BOT
            assert told["websocket_limit"] == TABS
            assert any("RFC" in refused for refused in told)
            assert '"value": 120' in rejections.mend()
        stuck.fires("OpenGuildConnectionsStuck", instance=strict.instance)
        measured = dict(re.findall(r"openguild_(\w+) (\S+)", stuck.ask()))
        assert float(measured["connections"]) >= 300
        assert float(measured["loop_stall_max_seconds"]) < 1
        assert "idle_timeout_secs = 3600" in stuck.try_row("og config dump")
        assert strict.server.stop() == 0
        strict.server.settings["HTTP__IDLE_TIMEOUT_SECS"] = 75
        strict.server.start()
        stuck.ends("OpenGuildConnectionsStuck")
    wait_until(lambda: lines(rejections.ask(2)) == [], what=lambda: rejections.ask(2))

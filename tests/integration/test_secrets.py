"""No secret of a whole run appears in the server's output: logs, errors, metrics, dumps, the process list."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus

from openguild_runtime.embedded import EmbeddedNats
from tests.support.chat import PASSWORD, User
from tests.support.raw import HOST, UPGRADE, RawClient
from tests.support.server import SIGNING_KEY, ServerProcess
from tests.support.waiting import free_port

GUESS = "a-wrong-guess-of-somebody"
TRUSTED = frozenset({"/sessions/login", "/sessions/refresh"})  # their answers contain tokens, with no-store


class Eavesdropper:
    """All output of the server, over every interface."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.said: list[str] = []

    def ask(
        self, user: User | None, method: str, path: str, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        client = self._server.chat().http
        answer = client.request(method, path, headers={**(user.auth if user else {}), **(headers or {})}, **more)
        if path.partition("?")[0] in TRUSTED and answer.is_success:
            assert answer.headers["cache-control"] == "no-store"
        else:
            self.said.append(f"{answer.headers}\n{answer.text}")

    def raw(self, data: bytes) -> None:
        with RawClient(self._server.port) as client:
            client.send(data)
            client.sock.shutdown(socket.SHUT_WR)
            self.said.append(client.read_to_end().decode("latin-1"))


def test_no_secret_is_said(tmp_path: Path, database_url: str, nats_server: EmbeddedNats) -> None:
    key_file, url_file = tmp_path / "signing.key", tmp_path / "database.url"
    key_file.write_text(SIGNING_KEY + "\n")
    url_file.write_text(database_url + "\n")
    settings = {
        "SESSION__SIGNING_KEY_FILE": str(key_file), "DATABASE_URL_FILE": str(url_file), "NATS__URL": nats_server.url,
        "FEDERATION__KEY_ID": "k1", "FEDERATION__SIGNING_KEY": "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8",
    }  # fmt: skip
    process = ServerProcess(
        tmp_path, "--log-format", "compact", without=("SESSION__SIGNING_KEY", "LOG_FORMAT"), **settings
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENGUILD_LOG", "debug")
        with process.start() as server:
            overheard = Eavesdropper(server)
            alice = server.chat().user()
            channel = alice.channel(alice.guild())
            other = server.chat().login(alice.name, "second")
            secrets = everything_secret(alice, other, database_url, nats_server.url)
            run_through(overheard, alice, channel)
            with pytest.raises(InvalidStatus):
                User(server.chat(), "x", GUESS, "", "").stream(channel)
            overheard.ask(other, "POST", "/sessions/revoke", json={"refresh_token": other.refresh_token})
            overheard.ask(other, "GET", "/users/me")
            assert server.process is not None
            overheard.said.append(Path(f"/proc/{server.process.pid}/cmdline").read_text())
            for command in (("config", "dump"), ("config", "check"), ("probe", server.base_url)):
                done = process.run_command(*command)
                overheard.said.append(done.stdout + done.stderr)
            assert server.stop() == 0
        overheard.said.append(process.log_path.read_text())
    wrong = urlsplit(database_url)._replace(netloc=f"openguild:hunter2hunter2@127.0.0.1:{free_port()}").geturl()
    for command in (("migrate",), ("config", "dump"), ("seed-user", "--username", "bob", "--password-stdin")):
        failed = ServerProcess(tmp_path, DATABASE_URL=wrong).run_command(*command, stdin="stdin-secret-9\n")
        overheard.said.append(failed.stdout + failed.stderr)
    text = "\n".join(overheard.said)
    assert "correct horse" not in text
    for name, secret in {**secrets, "wrong password": "hunter2hunter2", "stdin": "stdin-secret-9"}.items():
        assert len(secret) >= 8
        assert secret not in text, f"{name} was said near: {text[max(0, text.index(secret) - 300) :][:600]}"
    assert len(text) > 20_000, "there was something to look through"


def everything_secret(alice: User, other: User, database_url: str, nats_url: str) -> dict[str, str]:
    return {
        "signing key": SIGNING_KEY, "event key": "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8",
        "database password": str(urlsplit(database_url).password), "nats password": str(urlsplit(nats_url).password),
        "password": PASSWORD, "guess": GUESS,
        "access token": alice.token, "its signature": alice.token.partition(".")[2], "refresh token": alice.refresh_token,
        "second token": other.token, "second refresh token": other.refresh_token,
    }  # fmt: skip


def run_through(overheard: Eavesdropper, alice: User, channel: str) -> None:
    """Send valid and invalid requests, with secrets wherever a client may put them."""
    token = alice.token
    for path in (
        "/users/me",
        "/guilds",
        "/channels/unread",
        "/sessions/devices",
        "/metrics",
        "/ready",
        "/openapi.json",
    ):
        overheard.ask(alice, "GET", path)
    login = {"identifier": alice.name, "secret": GUESS, "device": {"device_id": "x"}}
    overheard.ask(None, "POST", "/sessions/login", json=login)
    overheard.ask(None, "POST", "/sessions/login", json={**login, "secret": PASSWORD, "device": None})
    overheard.ask(None, "POST", "/sessions/login", json={**login, "secret": [PASSWORD]})
    overheard.ask(None, "POST", "/users/register", json={"username": "", "password": PASSWORD})
    overheard.ask(None, "POST", "/sessions/login", content=b'{"secret": "' + PASSWORD.encode() + b'"')
    for current in (GUESS, [PASSWORD]):
        change = {"current_password": current, "new_password": PASSWORD}
        overheard.ask(alice, "POST", "/users/@me/password", json=change)
    overheard.ask(None, "POST", "/sessions/refresh", json={"refresh_token": alice.refresh_token + "x"})
    overheard.ask(alice, "POST", f"/channels/{channel}/messages", json={"content": 5, "token": token})
    for path in (
        f"/users/me?access_token={token}",
        f"/no/such/{token}",
        f"/channels/{token}/events",
        f"/invites/{token}",
    ):
        overheard.ask(alice, "GET", path)
    overheard.ask(alice, "GET", "/users/me", headers={"x-request-id": token})
    overheard.ask(
        alice,
        "GET",
        "/users/me",
        headers={"x-request-id": f"Bearer {token}", "referer": f"http://x/?access_token={token}"},
    )
    bearer = f"Authorization: Bearer {token}\r\n".encode()
    overheard.raw(b"GET /users/me HTTP/1.1\r\n" + HOST + bearer + b"A : b\r\n\r\n")
    overheard.raw(b"GET /users/me?access_token=" + token.encode() + b"\x01 HTTP/1.1\r\n" + HOST + b"\r\n")
    overheard.raw(f"GET /channels/{channel}/ws?access_token={token}&since=99 HTTP/1.1\r\n".encode() + UPGRADE + b"\r\n")
    overheard.raw(f"GET /channels/{channel}/ws?access_token={token} HTTP/1.1\r\n".encode() + UPGRADE + b"\r\n\xff\xff")

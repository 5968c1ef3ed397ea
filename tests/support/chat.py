"""A small blocking client for tests: HTTP with httpx, streams with websockets."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.waiting import PATIENCE_SECS

PASSWORD = "correct horse battery"
_numbers = itertools.count(1)


class Chat:
    """A client without an account."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        # plain HTTP: loading all certificate authorities takes as long as ten requests
        self.http = httpx.Client(base_url=base_url, timeout=PATIENCE_SECS, trust_env=False, verify=False)

    def close(self) -> None:
        self.http.close()

    def user(self, name: str | None = None, device: str = "test") -> User:
        """Register (with a new name unless one is given) and log in."""
        name = name or f"user-{next(_numbers)}-{id(self):x}"
        registered = self.http.post("/users/register", json={"username": name, "password": PASSWORD})
        assert registered.status_code == 201, registered.text
        return self.login(name, device)

    def login(self, name: str, device: str = "test") -> User:
        answer = self.http.post(
            "/sessions/login", json={"identifier": name, "secret": PASSWORD, "device": {"device_id": device}}
        )
        assert answer.status_code == 200, answer.text
        tokens = answer.json()
        user = User(self, name, tokens["access_token"], tokens["refresh_token"], "")
        user.user_id = user.get("/users/me").json()["user_id"]
        return user


@dataclass
class User:
    chat: Chat
    name: str
    token: str
    refresh_token: str
    user_id: str

    @property
    def auth(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.chat.http.get(path, headers=self.auth, **more)

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self.chat.http.request(method, path, headers={**self.auth, **more.pop("headers", {})}, **more)

    def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return self.chat.http.post(path, json={} if body is None else body, headers={**self.auth, **headers})

    def ok(self, response: httpx.Response) -> Any:
        assert response.is_success, f"{response.status_code} {response.text}"
        return response.json() if response.content else None

    def guild(self, name: str = "guild") -> str:
        return self.ok(self.post("/guilds", {"name": name}))["guild_id"]

    def channel(self, guild_id: str, name: str = "general") -> str:
        return self.ok(self.post(f"/guilds/{guild_id}/channels", {"name": name}))["channel_id"]

    def invite(self, guild_id: str, **body: Any) -> str:
        return self.ok(self.post(f"/guilds/{guild_id}/invites", body))["code"]

    def join(self, code: str) -> Any:
        return self.ok(self.post(f"/invites/{code}/accept"))

    def say(self, channel_id: str, text: str, **more: Any) -> Any:
        return self.ok(self.post(f"/channels/{channel_id}/messages", {"content": text, **more}))

    def history(self, channel_id: str, **params: Any) -> list[dict[str, Any]]:
        return self.ok(self.get(f"/channels/{channel_id}/events", params=params))

    def stream(self, channel_id: str, **query: Any) -> ClientConnection:
        return self.socket(f"/channels/{channel_id}/ws", **query)

    def notifications(self) -> ClientConnection:
        return self.socket("/notifications/ws")

    def socket(self, path: str, **query: Any) -> ClientConnection:
        url = httpx.URL(self.chat.base_url).copy_with(scheme="ws", path=path, params=query or None)
        return connect(
            str(url),
            additional_headers=self.auth,
            compression=None,
            proxy=None,
            open_timeout=PATIENCE_SECS,
            close_timeout=2,
        )


def texts(events: list[dict[str, Any]]) -> list[str]:
    """Return the message texts of events, as listed or streamed."""
    return [event["event"]["content"]["content"] for event in events]


def receive(stream: ClientConnection, count: int, *, secs: float = PATIENCE_SECS) -> list[dict[str, Any]]:
    """Return the next `count` frames, decoded, without presence frames, which arrive when others open and end streams."""
    frames: list[dict[str, Any]] = []
    while len(frames) < count:
        frame = json.loads(stream.recv(timeout=secs))
        if frame.get("kind") != "presence":
            frames.append(frame)
    return frames


def told(notifications: ClientConnection, *, secs: float = PATIENCE_SECS) -> dict[str, Any]:
    """Return the next notification except those of new channels, which may arrive after the stream opens."""
    while True:
        frame: dict[str, Any] = json.loads(notifications.recv(timeout=secs))
        if frame["kind"] != "channel_created":
            return frame


def closed_with(stream: ClientConnection) -> int:
    """Return the close code with which the server ends the stream; earlier frames are dropped."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            stream.recv(timeout=PATIENCE_SECS)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code

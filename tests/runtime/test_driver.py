"""What the driver answers, counts and logs for streams, over a socket pair."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
import structlog

from openguild_proto.effects import Overloaded, StorageUnavailable
from openguild_proto.sessions.tokens import Claims
from openguild_proto.ws.frames import text_frame
from openguild_runtime.app import Server
from openguild_runtime.bus.local import LocalBus
from openguild_runtime.config import ServerConfig
from openguild_runtime.storage.base import Storage, Visible
from openguild_runtime.storage.memory import MemoryStorage
from openguild_runtime.streams import user_ring
from tests.support.deeds import add_user, login
from tests.support.server import SIGNING_KEY

pytestmark = pytest.mark.anyio
CAPACITY = 4


class Failing(MemoryStorage):
    """Cannot tell what a user sees."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self._failure = failure

    async def visible(self, user_id: str) -> Visible:
        raise self._failure


class Line:
    """One connection to a replica, from its first request on."""

    def __init__(self, server: Server, token: str, end: socket.socket) -> None:
        self.server, self.token, self.end = server, token, end

    async def ask(self, method: str, path: str, *headers: str) -> str:
        """The head of the answer, and its body where it came along."""
        lines = (f"{method} {path} HTTP/1.1", "host: x", f"authorization: Bearer {self.token}", *headers, "", "")
        self.end.sendall("\r\n".join(lines).encode())
        return await self.read()

    async def upgrade(self) -> str:
        key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
        return await self.ask(
            "GET", "/notifications/ws", "upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13", key,
            "x-request-id: the-upgrade",
        )  # fmt: skip

    async def read(self) -> str:
        await anyio.wait_readable(self.end)
        return self.end.recv(65_536).decode("latin-1")


@asynccontextmanager
async def connected(storage: Storage | None = None) -> AsyncIterator[Line]:
    storage = storage or MemoryStorage()
    config = ServerConfig.model_validate(
        {"session": {"signing_key": SIGNING_KEY}, "messaging": {"queue_capacity": CAPACITY}}
    )
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    with theirs, anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            server = Server(config, tasks, 1_000, storage=storage, bus=LocalBus())
            server.performer.serving = True
            user = await add_user(storage)
            session = login(user, 1)
            await storage.perform(session)
            now_us = int(server.sources.wall() * 1_000_000)
            token = server.service.tokens.issue(Claims(session.session_id, user, "name", now_us, now_us + 10**9))
            tasks.start_soon(server.streams.flusher.run)
            tasks.start_soon(server.driver.serve, ours, "192.0.2.1")
            yield Line(server, token, theirs)
            tasks.cancel_scope.cancel()
            server.driver.end_all()


@pytest.mark.parametrize(
    ("failure", "code"), [(Overloaded(), "overloaded"), (StorageUnavailable(), "database_unavailable")]
)
async def test_a_stream_that_cannot_be_prepared_is_refused_by_its_reason(failure: Exception, code: str) -> None:
    async with connected(Failing(failure)) as line:
        answer = await line.upgrade()
        assert answer.startswith("HTTP/1.1 503 ")
        assert "retry-after: 1\r\n" in answer
        assert f'"error":"{code}"' in answer
        assert line.server.service.sockets.total == 0


async def test_a_browser_s_preflight_is_not_counted() -> None:
    async with connected() as line:
        assert (await line.ask("OPTIONS", "/guilds")).startswith("HTTP/1.1 200 ")
        assert (await line.ask("GET", "/live")).startswith("HTTP/1.1 200 ")
        counted = [
            text for text in line.server.metrics.render().decode().splitlines() if "http_requests_total{" in text
        ]
        assert counted == ['openguild_http_requests_total{route="/live",status="200"} 1.0']


async def test_records_about_a_stream_name_its_request_its_user_and_its_channel() -> None:
    async with connected() as line:
        assert (await line.upgrade()).startswith("HTTP/1.1 101 ")
        (peer,) = line.server.streams.peers()
        assert peer.stream is not None
        expected = {
            "peer": "192.0.2.1", "request_id": "the-upgrade", "user_id": peer.stream.user_id, "channel_id": None,
        }  # fmt: skip
        with structlog.testing.capture_logs() as records:
            hub, ring = line.server.streams.hub, user_ring(peer.stream.user_id)
            for number in range(2 * CAPACITY):
                hub.publish(ring, text_frame(b"x"), number + 1)
            line.server.streams.flusher.mark(ring)
            assert "lagged by" in await line.read()
            deadline = peer.connection.next_deadline()  # for the answer to the close
            assert deadline is not None
            peer.deadline_passed(deadline)
        lagged, passed = (record for record in records if record["event"] in {"stream lagged", "deadline passed"})
        assert lagged == expected | {"event": "stream lagged", "log_level": "info", "missed": 2 * CAPACITY}
        assert passed == expected | {"event": "deadline passed", "log_level": "info", "deadline": passed["deadline"]}

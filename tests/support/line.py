"""A replica without a listener, and one connection to it over a socket pair."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from openguild_proto.events import Event
from openguild_proto.sessions.tokens import Claims
from openguild_runtime.bus.local import LocalBus
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.net.transport import Transport
from openguild_runtime.server.app import Server
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.memory import MemoryStorage
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from tests.support.deeds import add_user, login
from tests.support.server import SIGNING_KEY
from tests.support.waiting import PATIENCE_SECS


class NoDriver:
    """Stands in for a transport's connection server and does nothing."""

    draining = False

    def report(self, transport: Transport, event: Event) -> None:
        return None

    def readable(self, transport: Transport) -> None:
        return None


class Line:
    """One connection to a replica, which it opens with its first request."""

    def __init__(self, server: Server, token: str, user: str, end: socket.socket) -> None:
        self.server, self.token, self.user, self.end = server, token, user, end

    async def ask(self, method: str, path: str, *headers: str) -> str:
        """Send a request. Return the head of the answer, and its body if both came together."""
        lines = (f"{method} {path} HTTP/1.1", "host: x", f"authorization: Bearer {self.token}", *headers, "", "")
        self.end.sendall("\r\n".join(lines).encode())
        return await self.read()

    async def upgrade(self, path: str = "/notifications/ws", *headers: str) -> str:
        key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
        return await self.ask(
            "GET", path, "upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13", key,
            "x-request-id: the-upgrade", *headers,
        )  # fmt: skip

    async def read(self) -> str:
        """Wait for data and return it."""
        await anyio.wait_readable(self.end)
        return self.end.recv(65_536).decode("latin-1")

    async def read_exactly(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        got = b""
        while len(got) < size:
            await anyio.wait_readable(self.end)
            got += self.end.recv(size - len(got))
        return got


@asynccontextmanager
async def connected(
    storage: Storage | None = None,
    *,
    queue_capacity: int = 256,
    ends: tuple[socket.socket, socket.socket] | None = None,
    sources: ClocksAndEntropy | None = None,
    trusted_proxies: tuple[str, ...] = (),
) -> AsyncIterator[Line]:
    """Yield a connection whose client has the address 192.0.2.1. `queue_capacity`: events per ring; `ends`: the server's and the
    client's end, by default of a socket pair.
    """
    storage = storage or MemoryStorage()
    config = ServerConfig.model_validate(
        {
            "session": {"signing_key": SIGNING_KEY},
            "messaging": {"queue_capacity": queue_capacity},
            "trusted_proxies": trusted_proxies,
        }
    )
    ours, theirs = ends or socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    with theirs, anyio.fail_after(PATIENCE_SECS):
        async with anyio.create_task_group() as tasks:
            server = Server(config, tasks, 1_000, storage=storage, bus=LocalBus(), sources=sources)
            server.lifecycle.started()
            user = await add_user(storage)
            session = login(user, 1)
            await storage.perform(session)
            now_us = int(server.sources.wall() * 1_000_000)
            token = server.service.tokens.issue(Claims(session.session_id, user, "name", now_us, now_us + 10**9))
            tasks.start_soon(server.replica.run)
            server.connection_server.serve(ours, "192.0.2.1")
            try:
                yield Line(server, token, user, theirs)
            finally:
                tasks.cancel_scope.cancel()
                server.connection_server.end_all()
                server.watch.close()

"""A fake nats-server: it greets, answers as many pings as told, and then follows the test's script."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskGroup
from anyio.streams.stapled import MultiListener

INFO = b'INFO {"server_id":"x","version":"2.11.0","max_payload":1048576,"headers":true}\r\n'
GONE = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


class FakeNats:
    """Sends `greeting`, answers `pongs` pings, then sends `last` and closes, unless it `stays`."""

    def __init__(self, *, greeting: bytes = INFO, pongs: int = 3, last: bytes = b"", stays: bool = False) -> None:
        self._greeting = greeting
        self._pongs = pongs
        self._last = last
        self._stays = stays
        self.url = ""
        self.connections = 0
        self.heard = b""

    async def start(self, tasks: TaskGroup) -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        self.url = f"nats://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        tasks.start_soon(self._listen, listener)

    async def _listen(self, listener: MultiListener[SocketStream]) -> None:
        async with listener:
            await listener.serve(self._serve)

    async def _serve(self, stream: SocketStream) -> None:
        self.connections += 1
        async with stream:
            try:
                await self._talk(stream)
                if self._stays:
                    await anyio.sleep_forever()
            except GONE:
                return

    async def _talk(self, stream: SocketStream) -> None:
        await stream.send(self._greeting)
        answered = 0
        while answered < self._pongs:
            data = await stream.receive()
            self.heard += data
            for _ in range(min(data.count(b"PING\r\n"), self._pongs - answered)):
                await stream.send(b"PONG\r\n")
                answered += 1
        await stream.send(self._last)


@asynccontextmanager
async def faking(*fakes: FakeNats) -> AsyncIterator[None]:
    """Let the fakes listen until the block ends."""
    async with anyio.create_task_group() as tasks:
        for fake in fakes:
            await fake.start(tasks)
        yield
        tasks.cancel_scope.cancel()

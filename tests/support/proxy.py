"""A TCP proxy that can delay, cut and swallow data: between a server and its PostgreSQL or NATS in chaos tests."""

from __future__ import annotations

import socket
from contextlib import suppress

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskGroup
from anyio.streams.stapled import MultiListener

GONE = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


class Proxy:
    """Forwards 127.0.0.1:`port` to `target`. `delay_secs` is added to each piece, in each direction."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = anyio.Event()  # set while data passes
        self._open.set()
        self._scopes: set[anyio.CancelScope] = set()
        self.port = 0
        self.delay_secs = 0.0
        self.refusing = False
        self.held = 0  # pieces that have been read and wait for `heal`

    async def start(self, tasks: TaskGroup, *, receive_buffer: int | None = None) -> None:
        """Start to listen. `receive_buffer`: the bytes that the kernel accepts from a client whose data is not read."""
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        if receive_buffer is not None:
            raw = listener.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.port = listener.extra(SocketAttribute.local_port)
        tasks.start_soon(self._listen, listener)

    async def _listen(self, listener: MultiListener[SocketStream]) -> None:
        async with listener:
            await listener.serve(self._serve)

    def cut(self) -> None:
        """End every connection, and accept none until `heal`."""
        self.refusing = True
        for scope in list(self._scopes):
            scope.cancel()

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._scopes)

    def black_hole(self) -> None:
        """Keep the connections but forward nothing: one piece is read in each direction, then no more."""
        self._open = anyio.Event()

    def heal(self) -> None:
        self.refusing = False
        self.delay_secs = 0.0
        self._open.set()

    async def connect(self) -> SocketStream:
        """Return a connection to the target. Raises OSError."""
        return await anyio.connect_tcp("127.0.0.1", self._target)

    async def _serve(self, near: SocketStream) -> None:
        with anyio.CancelScope() as scope, suppress(*GONE):
            async with near:
                if self.refusing:
                    return
                self._scopes.add(scope)
                try:
                    async with await self.connect() as far:
                        await self._both(near, far)
                finally:
                    self._scopes.discard(scope)

    async def _both(self, near: SocketStream, far: SocketStream) -> None:
        async with anyio.create_task_group() as tasks:
            for source, sink in ((near, far), (far, near)):
                tasks.start_soon(self._pass, source, sink, tasks.cancel_scope)

    async def _pass(self, source: SocketStream, sink: SocketStream, both: anyio.CancelScope) -> None:
        with suppress(*GONE):
            while True:
                data = await source.receive()
                if self.delay_secs:
                    await anyio.sleep(self.delay_secs)
                self.held += 1
                await self._open.wait()
                self.held -= 1
                await sink.send(data)
        both.cancel()

"""TCP without a network: bytes in order after a random delay, bounded windows, resets, and one server per address."""

from __future__ import annotations

import errno
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import anyio
from anyio.abc import ByteStream

from openguild_runtime.client import Address
from tests.simulation.runtime.loop import SimLoop

WINDOW_BYTES = (16_384, 1 << 20)  # the bytes that one direction holds before the sender must wait, per connection


class Pipe:
    """One direction of a connection. `arrived` is called when the reader has something new."""

    def __init__(self, network: Network, arrived: Callable[[], None], drained: Callable[[], None]) -> None:
        self._network = network
        self._arrived = arrived
        self._drained = drained
        self._window = network.window()
        self._last = 0.0
        self._queue: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.in_flight = 0
        self.buffer = bytearray()
        self.ended = False
        self.reset = False

    @property
    def room(self) -> int:
        return self._window - self.in_flight - len(self.buffer)

    def send(self, data: bytes) -> int:
        taken = data[: max(0, self.room)]
        if taken:
            self.in_flight += len(taken)
            self._later(self._arrive, taken)
        return len(taken)

    def end(self) -> None:
        self._later(self._end)

    def break_now(self) -> None:
        """Reset the pipe; bytes in flight arrive with the reset."""
        while self._queue:
            self._next()
        self.reset = True
        self._arrived()
        self._drained()

    def read(self, size: int) -> bytes:
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        if data:
            self._drained()
        return data

    def _later(self, action: Callable[..., None], *arguments: Any) -> None:
        """Act later, in the order of the calls: timers of the same time fire in any order."""
        loop = self._network.loop
        self._last = max(self._last, loop.time() + self._network.delay())
        self._queue.append((action, arguments))
        loop.call_at(self._last, self._next)

    def _next(self) -> None:
        if self._queue:  # else a reset has overtaken it
            action, arguments = self._queue.popleft()
            action(*arguments)

    def _arrive(self, data: bytes) -> None:
        self.in_flight -= len(data)
        if not self.reset:
            self.buffer += data
            self._arrived()

    def _end(self) -> None:
        self.ended = True
        self._arrived()


class SimSocket:
    """The server's end, non-blocking like the sockets that the runtime drives."""

    def __init__(self, network: Network, number: int) -> None:
        self._network = network
        self._number = number
        self.incoming: Pipe
        self.outgoing: Pipe
        self._closed = False
        self._shut = False

    def fileno(self) -> int:
        return self._number

    def recv_into(self, buffer: memoryview, size: int) -> int:
        if self._shut:
            return 0
        data = self.incoming.read(size)
        if not data and self.incoming.reset:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        if not data and not self.incoming.ended:
            raise BlockingIOError
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes | memoryview) -> int:
        if self.outgoing.reset or self._shut:
            raise BrokenPipeError(errno.EPIPE, "broken pipe")
        sent = self.outgoing.send(bytes(data))
        if not sent:
            raise BlockingIOError
        return sent

    def sendmsg(self, parts: Iterable[bytes | memoryview]) -> int:
        return self.send(b"".join(parts))

    def shutdown(self, how: int) -> None:
        if self.incoming.reset:
            raise OSError(errno.ENOTCONN, "not connected")
        self.outgoing.end()
        if how == 2:
            self._shut = True
            self._network.loop.tell("read", self._number)
            self._network.loop.tell("write", self._number)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.outgoing.end()
            self._network.forget(self._number)

    def can(self, kind: str) -> bool:
        if self._shut or self.incoming.reset:
            return True
        if kind == "read":
            return bool(self.incoming.buffer) or self.incoming.ended
        return self.outgoing.room > 0

    def break_now(self) -> None:
        self.incoming.break_now()
        self.outgoing.break_now()


class SimStream(ByteStream):
    """The client's end."""

    def __init__(self) -> None:
        self.incoming: Pipe
        self.outgoing: Pipe
        self.changed = anyio.Event()

    def wake(self) -> None:
        self.changed.set()

    async def _wait(self) -> None:
        self.changed = anyio.Event()
        await self.changed.wait()

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        while True:
            if self.incoming.reset:
                raise anyio.BrokenResourceError
            data = self.incoming.read(max_bytes)
            if data:
                return data
            if self.incoming.ended:
                raise anyio.EndOfStream
            await self._wait()

    async def send(self, item: bytes) -> None:
        while item:
            if self.outgoing.reset:
                raise anyio.BrokenResourceError
            item = item[self.outgoing.send(item) :]
            if item:
                await self._wait()

    async def send_eof(self) -> None:
        self.outgoing.end()

    async def aclose(self) -> None:
        self.outgoing.end()


Accept = Callable[[Any, str], None]


class Network:
    """`listeners`: port -> the function that accepts there. Delays are drawn per piece of data."""

    def __init__(self, loop: SimLoop, rng: Random) -> None:
        self.loop = loop
        self._rng = rng
        self._numbers = itertools.count(1_000)
        self._sockets: dict[int, tuple[int, SimSocket]] = {}  # descriptor -> (port, socket)
        self.listeners: dict[int, Accept] = {}
        loop.is_ready = self._is_ready

    def delay(self) -> float:
        return self._rng.choice((0.0002, 0.001, 0.001, 0.003, 0.03))

    def window(self) -> int:
        return self._rng.choice(WINDOW_BYTES)

    def _is_ready(self, kind: str, descriptor: int) -> bool:
        entry = self._sockets.get(descriptor)
        return entry is not None and entry[1].can(kind)

    def broken(self) -> int:
        """Return the number of reset connections that their server has not closed."""
        return sum(sock.incoming.reset for _, sock in self._sockets.values())

    async def connect(self, address: Address) -> ByteStream:
        await anyio.sleep(self.delay())
        accept = self.listeners.get(address.port)
        if accept is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        number = next(self._numbers)
        there, here = SimSocket(self, number), SimStream()
        inbound = Pipe(self, lambda: self.loop.tell("read", number), here.wake)
        outbound = Pipe(self, here.wake, lambda: self.loop.tell("write", number))
        there.incoming, there.outgoing = inbound, outbound
        here.incoming, here.outgoing = outbound, inbound
        self._sockets[number] = address.port, there
        accept(there, "192.0.2.1")
        return here

    def cut(self, port: int, share: float = 1.0) -> None:
        """Reset connections of the listener at `port`: all, or a random share."""
        for there, sock in list(self._sockets.values()):
            if there == port and self._rng.random() < share:
                sock.break_now()

    def forget(self, descriptor: int) -> None:
        self._sockets.pop(descriptor, None)

"""One non-blocking socket and the waits for it. A wait ends when the socket is ready, when it has broken, or at `end`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from openguild_runtime.net.socket_watch import READ, WRITE, SocketWatch

# Of the loop's thread: a new one for each read would cost more than the copy out of it.
_BUFFER = memoryview(bytearray(65_536))


class NonblockingSocket:
    """Owned by one connection, and read by callback; at most one task waits to write. Must be made while the loop runs.

    `turns_of`: the address whose turns it is read in; that of the peer, until a WebSocket tells who is behind a proxy.
    """

    __slots__ = ("_events", "_reader", "_sock", "_watch", "_writer", "ended", "turns_of")

    def __init__(self, sock: socket.socket, watch: SocketWatch, turns_of: str = "") -> None:
        self.turns_of = turns_of
        self.ended = False  # by `end`: nothing is sent or received any more
        self._sock = sock
        self._watch = watch
        self._events = 0  # what the watch reports
        self._reader: Callable[[], None] | None = None
        self._writer: asyncio.Future[None] | None = None

    def fileno(self) -> int:
        """The descriptor, for senders that bypass `send`; -1 after `close`."""
        return self._sock.fileno()

    # --- bytes -------------------------------------------------------------------------------------

    def receive(self, size: int) -> bytes | None:
        """Up to `size` bytes without waiting, b"" when there will be no more; None: nothing has come."""
        if self.ended:
            return b""
        try:
            nbytes = self._sock.recv_into(_BUFFER, size)
            received = _BUFFER[:nbytes]
            data = received.tobytes()
            received[:] = bytes(nbytes)  # else passwords and redacted texts stay until a longer piece comes
            return data
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            self.end()
            return b""

    def send(self, data: bytes | memoryview) -> int | None:
        """One send(2): bytes taken, 0 where the kernel takes none; None: the socket has ended."""
        if self.ended:
            return None
        try:
            return self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self.end()
            return None

    def send_parts(self, parts: list[memoryview]) -> int | None:
        """`send` of several pieces in one call."""
        if self.ended:
            return None
        try:
            return self._sock.sendmsg(parts)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self.end()
            return None

    def end_writing(self) -> None:
        """Tell the peer that nothing follows."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.end()

    # --- waiting -----------------------------------------------------------------------------------

    async def writable(self) -> None:
        """Return when `send` is worth a try."""
        if self.ended:
            return
        self._writer = asyncio.get_running_loop().create_future()
        self._want(self._events | WRITE)
        try:
            await self._writer
        finally:
            self._writer = None
            self._want(self._events & ~WRITE)

    def call_when_readable(self, reader: Callable[[], None]) -> None:
        """From now on call `reader` whenever there is something to read, and when there will be no more."""
        self._reader = reader
        self.read_on(True)

    def read_on(self, wanted: bool) -> None:
        """Go on reading, or leave in the network what comes. A socket that has ended is told of in any case.

        It is watched between two reads as well, so that a request needs no new watch.
        """
        if self._reader is None:
            return
        if wanted and self.ended:
            self._wake_reader()
        else:
            self._want(self._events | READ if wanted else self._events & ~READ)

    def _want(self, events: int) -> None:
        if events != self._events:
            self._watch.want(self._sock.fileno(), self, events)
            self._events = events

    def ready(self, events: int) -> None:
        """Called by the watch."""
        if events & WRITE and self._events & WRITE:
            self._want(self._events & ~WRITE)
            self._wake_writer()
        if events & READ and self._events & READ:
            self._readable()

    def _readable(self) -> None:
        if self._reader is not None:
            self._reader()

    def _wake_reader(self) -> None:
        if self._reader is not None:
            asyncio.get_running_loop().call_soon(self._readable)  # later: the caller may be in the middle of a flush

    def _wake_writer(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    # --- the end -----------------------------------------------------------------------------------

    def end(self) -> None:
        """End both directions now and wake all waiting tasks; safe to repeat."""
        if self.ended:
            return
        self.ended = True
        with suppress(OSError):  # the peer was quicker
            self._sock.shutdown(socket.SHUT_RDWR)
        self._wake_reader()
        self._wake_writer()

    def close(self) -> None:
        """Close the descriptor, which may have a new owner at once; safe to repeat."""
        self.end()
        self._reader = None
        if self._sock.fileno() >= 0:
            self._want(0)
            self._sock.close()

"""A non-blocking socket and waits for it. A wait ends when the socket is ready or broken, or when `end` is called."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from openguild_runtime.net.socket_watch import READ, WRITE, SocketWatch

# Shared by all reads of the loop's thread: allocating a buffer for each read costs more than copying.
_BUFFER = memoryview(bytearray(65_536))


class NonblockingSocket:
    """The socket of one connection. A callback reads it; at most one task waits to write. Create it while the loop runs.

    Sockets are read round-robin by their `turns_of`: the peer's address, or the client's behind a proxy once the
    connection is a WebSocket.
    """

    __slots__ = ("_events", "_reader", "_sock", "_watch", "_writer", "ended", "turns_of")

    def __init__(self, sock: socket.socket, watch: SocketWatch, turns_of: str = "") -> None:
        self.turns_of = turns_of
        self.ended = False  # set by `end`: nothing is sent or received afterwards
        self._sock = sock
        self._watch = watch
        self._events = 0  # those that the watch reports
        self._reader: Callable[[], None] | None = None
        self._writer: asyncio.Future[None] | None = None

    def fileno(self) -> int:
        """Return the descriptor, for senders that bypass `send`, or -1 after `close`."""
        return self._sock.fileno()

    # --- bytes -------------------------------------------------------------------------------------

    def receive(self, size: int) -> bytes | None:
        """Return up to `size` bytes without waiting, b"" at the end of the stream, or None if nothing has arrived."""
        if self.ended:
            return b""
        try:
            nbytes = self._sock.recv_into(_BUFFER, size)
            received = _BUFFER[:nbytes]
            data = received.tobytes()
            received[:] = bytes(nbytes)  # so that passwords and redacted texts do not stay in memory
            return data
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            self.end()
            return b""

    def send(self, data: bytes | memoryview) -> int | None:
        """Call send(2) once and return the number of bytes sent, 0 if it would block, or None if the socket has ended."""
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
        """Send several pieces with one sendmsg(2). Returns the same as `send`."""
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
        """Shut down the write side, so that the peer sees the end of the stream."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.end()

    # --- waiting -----------------------------------------------------------------------------------

    async def writable(self) -> None:
        """Wait until the socket is writable or has ended."""
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
        """Call `reader` from now on whenever the socket is readable, and when it has ended."""
        self._reader = reader
        self.read_on(True)

    def read_on(self, wanted: bool) -> None:
        """Resume or pause calls of the reader. While paused, data stays in the kernel; `end` calls the reader in any case.

        The watch goes on between two reads, so that requests need no system calls for it.
        """
        if self._reader is None:
            return
        if wanted and self.ended:
            self._wake_reader()
        else:
            self._want(self._events | READ if wanted else self._events & ~READ)

    @property
    def is_read(self) -> bool:
        """Whether the reader is called when the socket is readable."""
        return bool(self._events & READ)

    def _want(self, events: int) -> None:
        if events != self._events:
            self._watch.want(self._sock.fileno(), self, events)
            self._events = events

    def ready(self, events: int) -> None:
        """Wake the writer and call the reader, as `events` say; called by the watch."""
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

    # --- closing -----------------------------------------------------------------------------------

    def end(self) -> None:
        """Shut down both directions and wake the reader and the writer. May be called again."""
        if self.ended:
            return
        self.ended = True
        with suppress(OSError):  # the peer has closed it already
            self._sock.shutdown(socket.SHUT_RDWR)
        self._wake_reader()
        self._wake_writer()

    def close(self) -> None:
        """Close the descriptor, whose number may be reused at once. May be called again."""
        self.end()
        self._reader = None
        if self._sock.fileno() >= 0:
            self._want(0)
            self._sock.close()

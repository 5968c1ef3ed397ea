"""One non-blocking socket and the waits for it, on uvloop and on asyncio's own loop.

A wait ends when the socket is ready, when it has broken, or at `end`. None relies on the loop to report a broken socket:
libuv stops a poll after its first EPOLLERR, so uvloop reports data and a reset that arrive together once, and the reset
alone never. After each read the socket is therefore asked for its error (SO_ERROR, socket(7)).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

_BUFFER = memoryview(
    bytearray(65_536)
)  # of the loop's thread: a new one for each read costs more than the copy out of it


class NonblockingSocket:
    """Owned by one connection, and read by callback; at most one task waits to write. Must be made while the loop runs."""

    __slots__ = ("_over", "_reader", "_sock", "_watched", "_writer", "ended")

    def __init__(self, sock: socket.socket) -> None:
        self.ended = False  # by `end`: nothing is sent or received any more
        self._sock = sock
        self._over = False  # the loop may never report this socket again
        self._watched = False  # the loop calls `_readable`
        self._reader: Callable[[], None] | None = None
        self._writer: asyncio.Future[None] | None = None

    def fileno(self) -> int:
        """The descriptor, for senders that bypass `send`; -1 after `close`."""
        return self._sock.fileno()

    # --- bytes -------------------------------------------------------------------------------------

    def receive(self, size: int) -> bytes | None:
        """Up to `size` bytes without waiting, b"" when there will be no more; None: nothing has come."""
        if self._over:
            return b""
        try:
            data = bytes(_BUFFER[: self._sock.recv_into(_BUFFER, size)])
            if data and self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._over = True
                self._wake_reader()
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            self.end()
            return b""
        return data

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
        if self._over:
            return
        self._writer = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_writer(self._sock, self._wake_writer)
        try:
            await self._writer
        finally:
            self._writer = None
            if self._sock.fileno() >= 0:
                asyncio.get_running_loop().remove_writer(self._sock)

    def call_when_readable(self, reader: Callable[[], None]) -> None:
        """From now on the loop calls `reader` whenever there is something to read, and once when there will be no more."""
        self._reader = reader
        self.read_on(True)

    def read_on(self, wanted: bool) -> None:
        """Go on reading, or leave in the network what comes. A socket that is over is told of in any case.

        The loop goes on watching between two reads, so that a request needs no new watch.
        """
        if self._reader is None:
            return
        if self._over:
            if wanted:
                self._wake_reader()
            elif self._watched:  # the loop would report it again and again
                self._unwatch()
        elif wanted is not self._watched:
            if wanted:
                self._watch()
            else:
                self._unwatch()

    def _watch(self) -> None:
        if self._reader is not None:
            asyncio.get_running_loop().add_reader(self._sock, self._reader)
        self._watched = True

    def _unwatch(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sock)
        self._watched = False

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
        """End both directions now and wake whoever waits; safe to repeat."""
        if self.ended:
            return
        self.ended = self._over = True
        with suppress(OSError):  # the peer was quicker
            self._sock.shutdown(socket.SHUT_RDWR)
        self._wake_reader()
        self._wake_writer()

    def close(self) -> None:
        """Close the descriptor, which may have a new owner at once; safe to repeat."""
        self.end()
        self._reader = None
        if self._sock.fileno() >= 0:
            self._unwatch()
            asyncio.get_running_loop().remove_writer(self._sock)
            self._sock.close()

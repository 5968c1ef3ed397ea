"""The bounded output buffer of one connection: filled by the core, drained by the owner of the socket."""

from __future__ import annotations

from collections import deque

MAX_PIECES = 16  # in one call of `sendmsg`: POSIX guarantees that many (IOV_MAX)


class Outbox:
    """A queue of bytes. It accepts more than `max_bytes`, but is then `overflowed`.

    The connection checks this after messages and pongs, and ends; other callers of `append` check it themselves.
    """

    __slots__ = ("_offset", "_parts", "_size", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._parts: deque[bytes] | None = None  # None while empty: an idle socket keeps no buffer
        self._offset = 0  # bytes of the first part already sent
        self._size = 0
        self.max_bytes = max_bytes

    def append(self, data: bytes) -> None:
        """Queue `data`. b"" has no effect."""
        if data:
            if self._parts is None:
                self._parts = deque()
            self._parts.append(data)
            self._size += len(data)

    def peek(self, max_bytes: int) -> memoryview:
        """Return the first contiguous bytes, at most `max_bytes`; empty if nothing is queued."""
        if self._parts is None:
            return memoryview(b"")
        return memoryview(self._parts[0])[self._offset : self._offset + max_bytes]

    def parts(self, max_bytes: int) -> list[memoryview]:
        """Return the first bytes, at most `max_bytes`, in the pieces in which they were queued, for one call of `sendmsg`."""
        found: list[memoryview] = []
        offset, left = self._offset, max_bytes
        for part in self._parts or ():
            piece = memoryview(part)[offset : offset + left]
            found.append(piece)
            offset, left = 0, left - len(piece)
            if not left or len(found) == MAX_PIECES:
                break
        return found

    def consume(self, nbytes: int) -> int:
        """Remove `nbytes` that were sent, and return how many are left. Raises ValueError if it is negative or more than queued."""
        if not 0 <= nbytes <= self._size:
            raise ValueError(f"{nbytes} bytes cannot be consumed of {self._size} that are queued")
        self._size -= nbytes
        self._offset += nbytes
        parts = self._parts
        while parts and self._offset >= len(parts[0]):
            self._offset -= len(parts.popleft())
        if not parts:
            self._parts = None
        return self._size

    def take(self) -> list[bytes]:
        """Remove and return everything, for callers that use `sendall`."""
        parts = list(self._parts) if self._parts is not None else []
        if parts and self._offset:
            parts[0] = parts[0][self._offset :]
        self.clear()
        return parts

    def clear(self) -> None:
        """Drop all queued bytes."""
        self._parts = None
        self._offset = self._size = 0

    @property
    def overflowed(self) -> bool:
        """Whether more than `max_bytes` are queued."""
        return self._size > self.max_bytes

    def __len__(self) -> int:
        return self._size

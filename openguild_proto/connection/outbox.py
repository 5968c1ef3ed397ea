"""The bounded outgoing buffer of one connection: appended by the core, drained by whoever owns the socket."""

from __future__ import annotations

from collections import deque


class Outbox:
    """Bytes in order. `append` beyond `max_bytes` is taken and reported by `overflowed`: the connection ends then."""

    __slots__ = ("_max_bytes", "_offset", "_parts", "_size")

    def __init__(self, max_bytes: int) -> None:
        self._parts: deque[bytes] | None = None  # None while empty: an idle socket keeps no buffer
        self._offset = 0  # bytes of the first part that have left
        self._size = 0
        self._max_bytes = max_bytes

    def append(self, data: bytes) -> None:
        """Queue `data` behind what waits; b"" changes nothing."""
        if data:
            if self._parts is None:
                self._parts = deque()
            self._parts.append(data)
            self._size += len(data)

    def peek(self, max_bytes: int) -> memoryview:
        """The first contiguous bytes, at most `max_bytes`; empty when there is nothing."""
        if self._parts is None:
            return memoryview(b"")
        return memoryview(self._parts[0])[self._offset : self._offset + max_bytes]

    def consume(self, nbytes: int) -> None:
        """`nbytes` have left. Raises ValueError when there are not so many."""
        if nbytes > self._size:
            raise ValueError("more was consumed than waits")
        self._size -= nbytes
        self._offset += nbytes
        parts = self._parts
        while parts and self._offset >= len(parts[0]):
            self._offset -= len(parts.popleft())
        if not parts:
            self._parts = None

    def take(self) -> list[bytes]:
        """Everything at once, for callers that send with `sendall`."""
        parts = list(self._parts) if self._parts is not None else []
        if parts and self._offset:
            parts[0] = parts[0][self._offset :]
        self.clear()
        return parts

    def clear(self) -> None:
        """Drop whatever waits."""
        self._parts = None
        self._offset = self._size = 0

    @property
    def overflowed(self) -> bool:
        """Whether more than `max_bytes` wait."""
        return self._size > self._max_bytes

    def __len__(self) -> int:
        return self._size

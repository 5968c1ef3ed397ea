"""Bounds the HTTP responses of a process that wait for slow readers. Each is bounded by itself, but there may be many."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class UnsentResponses(Generic[T]):
    """Readers with an unsent response, and the bytes left when the write first blocked.

    Only blocked writes are tracked, so fast readers cost nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes: dict[T, int] = {}  # by reader, the longest blocked first
        self._total = 0

    def begin(self, reader: T, nbytes: int) -> list[T]:
        """Track `nbytes` for `reader`. Return the readers to close so that at most `max_bytes` wait, the longest blocked first."""
        self.end(reader)
        self._bytes[reader] = nbytes
        self._total += nbytes
        closing = []
        while self._total > self._max_bytes:
            oldest = next(iter(self._bytes))
            if oldest is reader:
                break
            self.end(oldest)
            closing.append(oldest)
        return closing

    def end(self, reader: T) -> None:
        """Stop tracking a reader that has everything or is gone. Idempotent."""
        self._total -= self._bytes.pop(reader, 0)

    @property
    def total_bytes(self) -> int:
        """The bytes that wait, of all readers."""
        return self._total

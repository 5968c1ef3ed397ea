"""How much of the HTTP answers may wait for slow readers, in all: each alone is bounded, and there may be many."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class UnsentResponses(Generic[T]):
    """Who has not taken an answer yet, and the bytes that were left when the kernel first took no more.

    Asked only where a write was blocked, so it costs readers that keep up nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes: dict[T, int] = {}  # in the order in which they were blocked
        self._total = 0

    def begin(self, reader: T, nbytes: int) -> list[T]:
        """`reader` leaves `nbytes` waiting. Those that must go so that no more than `max_bytes` wait, the longest blocked first."""
        self.end(reader)
        self._bytes[reader] = nbytes
        self._total += nbytes
        leaving = []
        while self._total > self._max_bytes:
            oldest = next(iter(self._bytes))
            if oldest is reader:
                break
            self.end(oldest)
            leaving.append(oldest)
        return leaving

    def end(self, reader: T) -> None:
        """It has taken everything, or is gone. Idempotent."""
        self._total -= self._bytes.pop(reader, 0)

    @property
    def total_bytes(self) -> int:
        """Waiting in all."""
        return self._total

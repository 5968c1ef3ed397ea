"""Bounds what the peers of a process make it hold: bodies that have come in part, responses that wait for their readers.

Each of these is bounded by itself, but there may be many.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class HeldBytes(Generic[T]):
    """The bytes that are held for each peer, at most `max_bytes` in all."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes: dict[T, int] = {}  # by peer, the one that began first at the beginning
        self._total = 0

    def hold(self, peer: T, nbytes: int) -> list[T]:
        """Note that `nbytes` are held for `peer` now; 0 forgets it.

        Return the peers to close, so that the total stays within its bound, the first to begin first. They are forgotten.
        """
        if not nbytes:
            self._total -= self._bytes.pop(peer, 0)
            return []
        self._total += nbytes - self._bytes.get(peer, 0)
        self._bytes[peer] = nbytes
        closing = []
        while self._total > self._max_bytes:
            oldest = next(iter(self._bytes))
            self.hold(oldest, 0)
            closing.append(oldest)
        return closing

    @property
    def total_bytes(self) -> int:
        """The bytes that are held, of all peers."""
        return self._total

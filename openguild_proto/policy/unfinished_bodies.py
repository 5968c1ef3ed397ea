"""Bounds the request bodies of a process that have come in part. Each is bounded by itself, but there may be many."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class UnfinishedBodies(Generic[T]):
    """Peers whose request has a body that is not whole, and the bytes of it that have come."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes: dict[T, int] = {}  # by peer, the one that began first at the beginning
        self._total = 0

    def received(self, peer: T, nbytes: int) -> list[T]:
        """Count more bytes of a body. Return the peers to close so that at most `max_bytes` are kept, the first to begin first."""
        self._bytes[peer] = self._bytes.get(peer, 0) + nbytes
        self._total += nbytes
        closing = []
        while self._total > self._max_bytes:
            oldest = next(iter(self._bytes))
            self.end(oldest)
            closing.append(oldest)
        return closing

    def end(self, peer: T) -> None:
        """Forget a peer whose body is whole, or that is gone. Idempotent."""
        self._total -= self._bytes.pop(peer, 0)

    @property
    def total_bytes(self) -> int:
        """The bytes that are kept, of all peers."""
        return self._total

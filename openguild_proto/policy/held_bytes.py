"""Bounds what the peers of a process make it hold: bodies that have come in part, responses that wait for their readers.

Each of these is bounded by itself, but there may be many.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from openguild_proto.policy.addresses import limit_key

T = TypeVar("T")


class HeldBytes(Generic[T]):
    """The bytes that are held for each peer, at most `max_bytes` in all.

    Beyond that the peers of the address with the most bytes are given up, so that a flood from one address costs no other.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: dict[T, int] = {}  # by peer, the one that began first at the beginning
        self._of_address: dict[str, dict[T, None]] = {}  # its peers, in the same order, by the limit key of the address
        self._totals: dict[str, int] = {}  # of the address
        self._total = 0

    def hold(self, peer: T, address: str, nbytes: int) -> list[T]:
        """Note that `nbytes` are held for `peer` now; 0 forgets it.

        Return the peers to close, so that the total stays within its bound, of each address the first to begin first. They
        are forgotten.
        """
        if not nbytes and peer not in self._held:
            return []
        self._set(peer, limit_key(address), nbytes)
        closing = []
        while self._total > self._max_bytes:
            heaviest = max(self._totals, key=self._totals.__getitem__)
            oldest = next(iter(self._of_address[heaviest]))
            self._set(oldest, heaviest, 0)
            closing.append(oldest)
        return closing

    def _set(self, peer: T, key: str, nbytes: int) -> None:
        more = nbytes - self._held.get(peer, 0)
        self._total += more
        self._totals[key] = self._totals.get(key, 0) + more
        if nbytes:
            self._held[peer] = nbytes
            self._of_address.setdefault(key, {})[peer] = None
            return
        del self._held[peer]
        del self._of_address[key][peer]
        if not self._of_address[key]:
            del self._of_address[key], self._totals[key]

    @property
    def total_bytes(self) -> int:
        """The bytes that are held, of all peers."""
        return self._total

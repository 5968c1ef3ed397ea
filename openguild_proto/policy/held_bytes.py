"""Bounds the bytes that a process holds for its peers: incomplete bodies, and responses that wait for slow readers.

Each of these is bounded, but there may be many.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from openguild_proto.policy.addresses import limit_key

T = TypeVar("T")


class _Held(NamedTuple):
    address: str  # its limit key
    nbytes: int


class HeldBytes(Generic[T]):
    """The bytes held for each peer, at most `max_bytes` in all.

    Beyond that, peers are closed in the order in which they began, but only peers of addresses that hold at least half as
    much as the average address. So a flood from one or many addresses does not affect peers that hold little or are fast.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: dict[T, _Held] = {}  # in the order in which the peers began
        self._of_address: dict[str, int] = {}  # by limit key
        self._total = 0

    def hold(self, peer: T, address: str, nbytes: int) -> list[T]:
        """Record that `nbytes` are held for `peer`; 0 removes it. `address` counts for a new peer only.

        Return the peers to close to keep the total within its bound. They are removed.
        """
        held = self._held.get(peer)
        if held is None and not nbytes:
            return []
        self._set(peer, limit_key(address) if held is None else held.address, nbytes)
        return self._over() if self._total > self._max_bytes else []

    def forget(self, peer: T) -> None:
        """Remove `peer`. Idempotent."""
        self.hold(peer, "", 0)

    def _set(self, peer: T, key: str, nbytes: int) -> None:
        before = self._held.get(peer, _Held(key, 0)).nbytes
        self._total += nbytes - before
        of_address = self._of_address.get(key, 0) + nbytes - before
        if of_address:
            self._of_address[key] = of_address
        else:
            del self._of_address[key]
        if nbytes:
            self._held[peer] = _Held(key, nbytes)
        else:
            del self._held[peer]

    def _over(self) -> list[T]:
        """Remove and return peers in one pass, oldest first. That is enough: the spared peers hold less than half of the total."""
        closing = []
        share = self._total / len(self._of_address) / 2
        for peer, held in list(self._held.items()):
            if self._of_address[held.address] >= share:
                self._set(peer, held.address, 0)
                closing.append(peer)
                if self._total <= self._max_bytes:
                    break
        return closing

    @property
    def total_bytes(self) -> int:
        """The bytes held for all peers."""
        return self._total

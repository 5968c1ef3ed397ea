"""Bounds the memory that a process holds for its connections: incomplete bodies, and responses that clients have not read yet.

Each of these has a bound of its own, but there may be many connections.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from openguild_proto.policy.addresses import limit_key

T = TypeVar("T")


class _Held(NamedTuple):
    address: str  # its limit key
    nbytes: int


class HeldBytes(Generic[T]):
    """The bytes that are held for each peer, at most `max_bytes` in total.

    Above this bound, peers are closed, in the order in which they started to hold bytes. Only peers are closed whose address
    holds at least half of the average per address. So neither a flood from one address nor one from very many addresses harms
    clients that hold little or are quick.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: dict[T, _Held] = {}  # oldest first
        self._of_address: dict[str, int] = {}  # by limit key
        self._total = 0

    def hold(self, peer: T, address: str, nbytes: int) -> list[T]:
        """Set the bytes that are held for `peer`, which connected from `address`. With 0 the peer is forgotten.

        Return the peers to close so that the total stays within its bound. They are forgotten.
        """
        held = self._held.get(peer)
        if held is None and not nbytes:
            return []
        self._set(peer, limit_key(address) if held is None else held.address, nbytes)
        return self._over() if self._total > self._max_bytes else []

    def forget(self, peer: T) -> None:
        """Forget `peer`: nothing is held for it any more. Idempotent."""
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
        """Remove and return peers, oldest first. One pass is enough: the peers that it spares hold less than half of the total."""
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
        """The bytes that are held for all peers."""
        return self._total

"""Round-robin turns by address: a long queue of one address does not delay the others."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.round_robin import RoundRobin

T = TypeVar("T")


class _Waiting(NamedTuple, Generic[T]):
    key: str
    item: T
    nbytes: int


class TurnsByAddress(Generic[T]):
    """Waiting items, at most `max_bytes` of them, and `max_bytes_of_address` from one address (PROTOCOL 2.7.3).

    Items of one address keep their order.
    """

    def __init__(self, max_bytes: int, max_bytes_of_address: int) -> None:
        self._max_bytes = max_bytes
        self._max_bytes_of_address = max_bytes_of_address
        self._waiting: RoundRobin[_Waiting[T]] = RoundRobin()  # by limit key
        self._of_address: dict[str, int] = {}  # bytes
        self._total = 0

    def add(self, address: str, item: T, nbytes: int) -> bool:
        """Queue `item` after those of its address. Return False if too much is waiting already."""
        key = limit_key(address)
        of_address = self._of_address.get(key, 0) + nbytes
        if of_address > self._max_bytes_of_address or self._total + nbytes > self._max_bytes:
            return False
        if of_address:
            self._of_address[key] = of_address
        self._total += nbytes
        self._waiting.add(key, _Waiting(key, item, nbytes))
        return True

    def take(self) -> T | None:
        """Remove and return the item whose turn it is, or None if nothing waits."""
        waiting = self._waiting.take()
        if waiting is None:
            return None
        key, item, nbytes = waiting
        self._total -= nbytes
        left = self._of_address.pop(key, 0) - nbytes
        if left:
            self._of_address[key] = left
        return item

"""Turns of addresses, one after the other: what an address has waiting does not hold up what others have."""

from __future__ import annotations

from collections import deque
from typing import Generic, NamedTuple, TypeVar

from openguild_proto.policy.addresses import limit_key

T = TypeVar("T")


class _Waiting(NamedTuple, Generic[T]):
    item: T
    nbytes: int


class TurnsByAddress(Generic[T]):
    """What waits, at most `max_bytes` of it, and `max_bytes_of_address` of one address (PROTOCOL 2.7.3).

    What came from one address has its turns in the order of its coming.
    """

    def __init__(self, max_bytes: int, max_bytes_of_address: int) -> None:
        self._max_bytes = max_bytes
        self._max_bytes_of_address = max_bytes_of_address
        self._waiting: dict[str, deque[_Waiting[T]]] = {}  # by limit key, that whose turn was longest ago first
        self._of_address: dict[str, int] = {}  # bytes
        self._total = 0

    def add(self, address: str, item: T, nbytes: int) -> bool:
        """Have `item` wait behind those of its address. False: too much waits already."""
        key = limit_key(address)
        of_address = self._of_address.get(key, 0) + nbytes
        if of_address > self._max_bytes_of_address or self._total + nbytes > self._max_bytes:
            return False
        self._of_address[key] = of_address
        self._total += nbytes
        self._waiting.setdefault(key, deque()).append(_Waiting(item, nbytes))
        return True

    def take(self) -> T | None:
        """Return whose turn it is; None: nothing waits."""
        key = next(iter(self._waiting), None)
        if key is None:
            return None
        waiting = self._waiting.pop(key)
        item, nbytes = waiting.popleft()
        self._total -= nbytes
        self._of_address[key] -= nbytes
        if waiting:
            self._waiting[key] = waiting
        else:
            del self._of_address[key]
        return item

"""Turns of addresses, one after the other: what an address has waiting does not hold up what others have."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class TurnsByAddress(Generic[T]):
    """What waits, by the address that it came from. Those of one address have their turns in the order of their coming."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[T]] = {}  # the address whose turn was longest ago first

    def add(self, address: str, item: T) -> None:
        """Have `item` wait behind those of its address."""
        self._waiting.setdefault(address, deque()).append(item)

    def take(self) -> T | None:
        """Return whose turn it is; None: nothing waits."""
        for address, items in self._waiting.items():
            del self._waiting[address]
            item = items.popleft()
            if items:
                self._waiting[address] = items
            return item
        return None

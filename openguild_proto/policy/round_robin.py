"""Round-robin turns by key: a long queue of one key does not delay the others."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class RoundRobin(Generic[T]):
    """Items by key. The keys take turns; items of one key keep their order."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[T]] = {}  # by key; the key whose turn was longest ago comes first

    def add(self, key: str, item: T) -> None:
        """Queue `item` after those of its key."""
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = deque()
        waiting.append(item)

    def take(self) -> T | None:
        """Remove and return the item whose turn it is, or None if nothing waits."""
        key = next(iter(self._waiting), None)
        if key is None:
            return None
        waiting = self._waiting[key]
        item = waiting.popleft()
        if len(self._waiting) > 1 or not waiting:
            del self._waiting[key]
            if waiting:
                self._waiting[key] = waiting
        return item

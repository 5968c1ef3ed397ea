"""Queues whose items are taken in batches, bounded in items and in bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, TypeVar

from openguild_proto.limits import MAX_BATCH_ITEMS

Item = TypeVar("Item")
Ticket = TypeVar("Ticket")


class Waiting(Generic[Item, Ticket]):
    """A queued item, its size in bytes, and the ticket through which the caller gets the result."""

    __slots__ = ("item", "size", "ticket")

    def __init__(self, item: Item, size: int, ticket: Ticket) -> None:
        self.item = item
        self.size = size
        self.ticket = ticket


class BatchQueue(ABC, Generic[Item, Ticket]):
    """A queue of items. `len` and `bytes` never exceed `max_items` and `max_bytes`.

    Each accepted item leaves the queue once: by `take`, `clear`, or a subclass's method that drops items.
    """

    def __init__(self, *, max_items: int, max_bytes: int) -> None:
        self.max_items = max_items
        self.max_bytes = max_bytes
        self.bytes = 0
        self._items = 0

    def __len__(self) -> int:
        return self._items

    @abstractmethod
    def offer(self, item: Item, ticket: Ticket, now: float) -> bool:
        """Queue the item. Return False, with nothing changed, if a bound is reached."""

    @abstractmethod
    def take(self) -> list[Waiting[Item, Ticket]]:
        """Remove and return the next batch, at most MAX_BATCH_ITEMS. It is only empty if the queue is."""

    def clear(self) -> list[Waiting[Item, Ticket]]:
        """Remove and return all items."""
        gone: list[Waiting[Item, Ticket]] = []
        while self._items:
            gone += self.take()
        return gone

    def _has_room(self, size: int) -> bool:
        return self._items < self.max_items and self.bytes + size <= self.max_bytes

    def _remove(self, gone: list[Waiting[Item, Ticket]]) -> None:
        """Subtract removed items from the totals."""
        self._items -= len(gone)
        for waiting in gone:
            self.bytes -= waiting.size


class ArrivalQueue(BatchQueue[Item, Ticket]):
    """A FIFO queue of items of one size."""

    def __init__(self, *, max_items: int, item_bytes: int) -> None:
        super().__init__(max_items=max_items, max_bytes=max_items * item_bytes)
        self._item_bytes = item_bytes
        self._line: deque[Waiting[Item, Ticket]] = deque()

    def offer(self, item: Item, ticket: Ticket, now: float) -> bool:
        """Queue the item. Return False if `max_items` are queued."""
        if self._items >= self.max_items:
            return False
        self._line.append(Waiting(item, self._item_bytes, ticket))
        self._items += 1
        self.bytes += self._item_bytes
        return True

    def take(self) -> list[Waiting[Item, Ticket]]:
        """Remove and return the oldest items."""
        batch = [self._line.popleft() for _ in range(min(len(self._line), MAX_BATCH_ITEMS))]
        self._remove(batch)
        return batch

"""What waits to be done together: bounded in items and in bytes, taken in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, TypeVar

from openguild_proto.limits import MAX_BATCH_ITEMS

Item = TypeVar("Item")
Ticket = TypeVar("Ticket")


class Waiting(Generic[Item, Ticket]):
    """An item, the bytes it holds while it waits, and the ticket under which its caller gets the answer."""

    __slots__ = ("item", "size", "ticket")

    def __init__(self, item: Item, size: int, ticket: Ticket) -> None:
        self.item = item
        self.size = size
        self.ticket = ticket


class BatchQueue(ABC, Generic[Item, Ticket]):
    """Items on their way into a batch. `len` and `bytes` never exceed `max_items` and `max_bytes`.

    Offer items, take batches until it is empty, and use `clear` where nothing will be taken any more. Each item that
    was admitted comes out once: of `take`, of `clear`, or of what a subclass has to let go.
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
        """Admit the item. False, with nothing changed, at a bound: the item is refused, not kept."""

    @abstractmethod
    def take(self) -> list[Waiting[Item, Ticket]]:
        """The next batch, of at most MAX_BATCH_ITEMS; empty only where nothing waits."""

    def clear(self) -> list[Waiting[Item, Ticket]]:
        """Everything that waits, which waits no more."""
        gone: list[Waiting[Item, Ticket]] = []
        while self._items:
            gone += self.take()
        return gone

    def _has_room(self, size: int) -> bool:
        return self._items < self.max_items and self.bytes + size <= self.max_bytes

    def _remove(self, gone: list[Waiting[Item, Ticket]]) -> None:
        """These wait no more."""
        self._items -= len(gone)
        for waiting in gone:
            self.bytes -= waiting.size


class ArrivalQueue(BatchQueue[Item, Ticket]):
    """First come, first served. Every item is of one size, so their number bounds their bytes."""

    def __init__(self, *, max_items: int, item_bytes: int) -> None:
        super().__init__(max_items=max_items, max_bytes=max_items * item_bytes)
        self._item_bytes = item_bytes
        self._line: deque[Waiting[Item, Ticket]] = deque()

    def offer(self, item: Item, ticket: Ticket, now: float) -> bool:
        """False where `max_items` wait."""
        if self._items >= self.max_items:
            return False
        self._line.append(Waiting(item, self._item_bytes, ticket))
        self._items += 1
        self.bytes += self._item_bytes
        return True

    def take(self) -> list[Waiting[Item, Ticket]]:
        """Those that have waited longest."""
        batch = [self._line.popleft() for _ in range(min(len(self._line), MAX_BATCH_ITEMS))]
        self._remove(batch)
        return batch

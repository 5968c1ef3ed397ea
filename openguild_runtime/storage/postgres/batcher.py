"""What waits together is done together: one statement for a batch of callers, each with an answer of its own.

Whoever comes alone is served at once. While one batch is under way the next one gathers, so under load the cost of a
round trip, and of a commit, is shared.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

import structlog

from openguild_proto.effects import Overloaded, StorageUnavailable

Item = TypeVar("Item")
Reply = TypeVar("Reply")
Perform: TypeAlias = Callable[[Sequence[Item]], Awaitable[Sequence[Reply | Exception]]]

MAX_BATCH_ITEMS = 256
MAX_BATCH_BYTES = 2 * 1024 * 1024

log = structlog.get_logger("openguild.storage")


class Waiting(Generic[Item, Reply]):
    """An item, the bytes it holds while it waits, and the future its caller waits for."""

    __slots__ = ("future", "item", "size")

    def __init__(self, item: Item, size: int) -> None:
        self.item = item
        self.size = size
        self.future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def settle(self, outcome: Reply | BaseException) -> None:
        """Answer, once: a caller who was cancelled does not undo what was done."""
        if self.future.done():
            return
        if not isinstance(outcome, BaseException):
            self.future.set_result(outcome)
        elif isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.cancel()  # whoever performs batches was cancelled


class Batcher(ABC, Generic[Item, Reply]):
    """`perform(items)` returns one reply for each, in order, or the exception that this one's caller is to get.

    What waits is bounded in items and in bytes; beyond that an item is refused, not kept. When `perform` fails, every
    caller of its batch gets the failure and the next batch is taken.
    """

    def __init__(self, perform: Perform[Item, Reply], *, max_items: int, max_bytes: int) -> None:
        self._perform = perform
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._items = 0
        self._bytes = 0
        self._wake = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return self._items

    @property
    def bytes(self) -> int:
        return self._bytes

    @abstractmethod
    def _size(self, item: Item) -> int:
        """Bytes that the item holds while it waits."""

    @abstractmethod
    def _put(self, waiting: Waiting[Item, Reply]) -> None:
        """Keep it; may raise Overloaded."""

    @abstractmethod
    def _take(self) -> list[Waiting[Item, Reply]]:
        """The next batch, of at most MAX_BATCH_ITEMS; not empty, for something waits."""

    def submit(self, item: Item) -> asyncio.Future[Reply]:
        """Queue an item; await the result. Raises Overloaded at a bound, StorageUnavailable after `close`."""
        if self._closed:
            raise StorageUnavailable
        waiting: Waiting[Item, Reply] = Waiting(item, self._size(item))
        if self._items >= self._max_items or self._bytes + waiting.size > self._max_bytes:
            raise Overloaded
        self._put(waiting)
        self._items += 1
        self._bytes += waiting.size
        self._wake.set()
        return waiting.future

    def close(self) -> None:
        """Finish the batch under way and take no other: whoever waits is told so, nobody waits for ever."""
        self._closed = True
        self._wake.set()
        self.refuse_waiting()

    def refuse_waiting(self) -> None:
        """Whoever waits for the next batch is told that there is none; the batch under way is not touched."""
        while self._items:
            _settle(self._next(), StorageUnavailable())

    async def run(self) -> None:
        """Perform batches until `close`, or until cancelled. Several may run at once, each with its connection."""
        while True:
            while not self._items:
                if self._closed:
                    return
                self._wake.clear()
                await self._wake.wait()
            batch = [waiting for waiting in self._next() if not waiting.future.done()]  # the others were given up
            if not batch:
                continue
            try:
                outcomes = await self._perform([waiting.item for waiting in batch])
                for waiting, outcome in zip(batch, outcomes, strict=True):
                    waiting.settle(outcome)
            except StorageUnavailable as away:  # an expected one: it is logged where it was found out
                _settle(batch, away)
            except Exception as defect:
                log.exception("a batch failed", kind=type(defect).__name__, items=len(batch))
                _settle(batch, defect)
            except BaseException as cancelled:
                _settle(batch, cancelled)
                raise

    def _next(self) -> list[Waiting[Item, Reply]]:
        batch = self._take()
        self._let_go(batch)
        return batch

    def _let_go(self, gone: Sequence[Waiting[Item, Reply]]) -> None:
        """These wait no more."""
        self._items -= len(gone)
        self._bytes -= sum(waiting.size for waiting in gone)


def _settle(batch: Sequence[Waiting[Item, Reply]], failure: BaseException) -> None:
    for waiting in batch:
        waiting.settle(failure)

"""Batches the items of many callers into one statement, with a result for each.

A single item is processed at once. While a batch runs, the next one is collected, so that items under load share the cost
of a round trip and a commit. The queue (in the core) decides the content of each batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeAlias, TypeVar

import structlog

from openguild_proto.effects import Overloaded, StorageUnavailable
from openguild_proto.policy.batches import BatchQueue, Waiting

Item = TypeVar("Item")
Reply = TypeVar("Reply")
Perform: TypeAlias = Callable[[Sequence[Item]], Awaitable[Sequence[Reply | Exception]]]

log = structlog.get_logger("openguild.storage")


class Batcher(Generic[Item, Reply]):
    """Performs items in batches. `perform(items)` returns one result or exception for each item, in order.

    If `perform` raises, all callers of the batch get that exception, and the next batch is taken.
    """

    def __init__(self, queue: BatchQueue[Item, asyncio.Future[Reply]], perform: Perform[Item, Reply]) -> None:
        self._queue = queue
        self._perform = perform
        self._wake = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        """Return the number of queued items."""
        return len(self._queue)

    @property
    def bytes(self) -> int:
        """The number of queued bytes."""
        return self._queue.bytes

    def submit(self, item: Item) -> asyncio.Future[Reply]:
        """Queue an item and return the future of its result. Raises Overloaded if full, StorageUnavailable if closed."""
        if self._closed:
            raise StorageUnavailable
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if not self._queue.offer(item, future, time.monotonic()):
            raise Overloaded
        self._wake.set()
        return future

    def close(self) -> None:
        """Fail the queued items and refuse new ones; the running batch is finished."""
        self._closed = True
        self._wake.set()
        self.refuse_waiting()

    def refuse_waiting(self) -> None:
        """Fail the queued items; the running batch continues."""
        settle_all(self._queue.clear(), StorageUnavailable())

    async def run(self) -> None:
        """Perform batches until `close` or cancellation. Several tasks may run this at once, each with its connection."""
        while True:
            while not self._queue:
                if self._closed:
                    return
                self._wake.clear()
                await self._wake.wait()
            batch = [
                waiting for waiting in self._queue.take() if not waiting.ticket.done()
            ]  # without cancelled callers
            if not batch:
                continue
            try:
                outcomes = await self._perform([waiting.item for waiting in batch])
                for waiting, outcome in zip(batch, outcomes, strict=True):
                    _settle(waiting.ticket, outcome)
            except StorageUnavailable as failure:  # the pool has logged it
                settle_all(batch, failure)
            except Exception as bug:
                log.exception("a batch failed", kind=type(bug).__name__, items=len(batch))
                settle_all(batch, bug)
            except BaseException as cancelled:
                settle_all(batch, cancelled)
                raise


def settle_all(batch: Iterable[Waiting[Item, asyncio.Future[Reply]]], failure: BaseException) -> None:
    """Fail the callers that have no result yet."""
    for waiting in batch:
        _settle(waiting.ticket, failure)


def _settle(future: asyncio.Future[Reply], outcome: Reply | BaseException) -> None:
    """Set the result of a caller, unless it is done or cancelled."""
    if future.done():
        return
    if not isinstance(outcome, BaseException):
        future.set_result(outcome)
    elif isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.cancel()  # the task that performs batches was cancelled

"""What waits together is done together: one statement for a batch of callers, each with an answer of its own.

Whoever comes alone is served at once. While one batch is under way the next one gathers, so under load the cost of a
round trip, and of a commit, is shared. What waits, and what is in the next batch, the core's queues decide.
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
    """`perform(items)` returns one reply for each, in order, or the exception that this one's caller is to get.

    What `queue` does not admit is refused. When `perform` fails, every caller of its batch gets the failure and the
    next batch is taken.
    """

    def __init__(self, queue: BatchQueue[Item, asyncio.Future[Reply]], perform: Perform[Item, Reply]) -> None:
        self._queue = queue
        self._perform = perform
        self._wake = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        """Items that wait for the next batch."""
        return len(self._queue)

    @property
    def bytes(self) -> int:
        """Bytes that wait for the next batch."""
        return self._queue.bytes

    def submit(self, item: Item) -> asyncio.Future[Reply]:
        """Queue an item; await the result. Raises Overloaded at a bound, StorageUnavailable after `close`."""
        if self._closed:
            raise StorageUnavailable
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if not self._queue.offer(item, future, time.monotonic()):
            raise Overloaded
        self._wake.set()
        return future

    def close(self) -> None:
        """Finish the batch under way and take no other: whoever waits is told so, nobody waits for ever."""
        self._closed = True
        self._wake.set()
        self.refuse_waiting()

    def refuse_waiting(self) -> None:
        """Whoever waits for the next batch is told that there is none; the batch under way is not touched."""
        settle_all(self._queue.clear(), StorageUnavailable())

    async def run(self) -> None:
        """Perform batches until `close`, or until cancelled. Several may run at once, each with its connection."""
        while True:
            while not self._queue:
                if self._closed:
                    return
                self._wake.clear()
                await self._wake.wait()
            batch = [waiting for waiting in self._queue.take() if not waiting.ticket.done()]  # the others were given up
            if not batch:
                continue
            try:
                outcomes = await self._perform([waiting.item for waiting in batch])
                for waiting, outcome in zip(batch, outcomes, strict=True):
                    _settle(waiting.ticket, outcome)
            except StorageUnavailable as away:  # an expected one: it is logged where it was found out
                settle_all(batch, away)
            except Exception as defect:
                log.exception("a batch failed", kind=type(defect).__name__, items=len(batch))
                settle_all(batch, defect)
            except BaseException as cancelled:
                settle_all(batch, cancelled)
                raise


def settle_all(batch: Iterable[Waiting[Item, asyncio.Future[Reply]]], failure: BaseException) -> None:
    """Give the failure to the callers that have no answer yet."""
    for waiting in batch:
        _settle(waiting.ticket, failure)


def _settle(future: asyncio.Future[Reply], outcome: Reply | BaseException) -> None:
    """Answer, once: a caller who was cancelled does not undo what was done."""
    if future.done():
        return
    if not isinstance(outcome, BaseException):
        future.set_result(outcome)
    elif isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.cancel()  # whoever performs batches was cancelled

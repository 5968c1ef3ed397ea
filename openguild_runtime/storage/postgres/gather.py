"""Reads that wait together become one query: who may see a channel is asked by every post and every joining stream.

A read alone starts at once. While a query is under way the next reads gather, so in a reconnect storm thousands of
questions become tens of queries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from openguild_proto.effects import Overloaded, StorageUnavailable

Question = TypeVar("Question")
Reply = TypeVar("Reply")

MAX_WAITING = 20_000
MAX_BATCH = 256


class Gather(Generic[Question, Reply]):
    """`read(questions)` returns one reply for each, in order."""

    def __init__(self, read: Callable[[Sequence[Question]], Awaitable[Sequence[Reply]]]) -> None:
        self._read = read
        self._waiting: list[tuple[Question, asyncio.Future[Reply]]] = []
        self._wake = asyncio.Event()
        self._closed = False

    def close(self) -> None:
        """Nothing will be read any more: whoever waits is told so."""
        self._closed = True
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_exception(StorageUnavailable())

    def submit(self, question: Question) -> asyncio.Future[Reply]:
        """Raises Overloaded at the bound, StorageUnavailable after `close`."""
        if self._closed:
            raise StorageUnavailable
        if len(self._waiting) >= MAX_WAITING:
            raise Overloaded
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        self._wake.set()
        return future

    async def run(self) -> None:
        """Answer for ever; cancel to stop. Several may run at once."""
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            try:
                replies = await self._read([question for question, _ in batch])
            except Exception as failure:  # every asker hears of it, each with an exception of his own
                for _, future in batch:
                    if not future.done():
                        future.set_exception(type(failure)(*failure.args))
            except BaseException:
                for _, future in batch:
                    future.cancel()
                raise
            else:
                for (_, future), reply in zip(batch, replies, strict=True):
                    if not future.done():
                        future.set_result(reply)

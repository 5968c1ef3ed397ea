"""Group commit: appends that wait together are stored by one transaction (architecture, "Many replicas").

While one batch is on its way to the disk the next one gathers, so under load the cost of a commit is shared, and an
append alone starts at once. The queue is bounded in events and bytes; beyond it an append is refused, not kept.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from openguild_proto.effects import Appended, AppendEvent, AppendFailure, Overloaded

Outcome: TypeAlias = Appended | AppendFailure | Exception
Commit: TypeAlias = Callable[[Sequence[AppendEvent]], Awaitable[Sequence[Outcome]]]

MAX_QUEUE_EVENTS = 8_192
MAX_QUEUE_BYTES = 32 * 1024 * 1024
MAX_BATCH_EVENTS = 256
MAX_BATCH_BYTES = 2 * 1024 * 1024
OVERHEAD_BYTES = 512  # of a waiting append, beside its two texts


class Waiting:
    """One append and the future its caller waits for."""

    __slots__ = ("effect", "future", "size")

    def __init__(self, effect: AppendEvent, future: asyncio.Future[Appended | AppendFailure]) -> None:
        self.effect = effect
        self.future = future
        self.size = len(effect.canonical) + len(effect.wire) + OVERHEAD_BYTES


class CommitQueue:
    """`commit(effects)` stores a batch in one transaction and returns one outcome for each, in order.

    No two effects of a batch share a nonce or an event id: the later one waits for the next batch and finds the
    earlier one stored.
    """

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._waiting: deque[Waiting] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self.batches = 0
        self.events = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def bytes(self) -> int:
        return self._bytes

    def submit(self, effect: AppendEvent) -> asyncio.Future[Appended | AppendFailure]:
        """Queue an append; await the result. Raises Overloaded at the bound, with nothing done."""
        waiting = Waiting(effect, asyncio.get_running_loop().create_future())
        if len(self._waiting) >= MAX_QUEUE_EVENTS or self._bytes + waiting.size > MAX_QUEUE_BYTES:
            raise Overloaded
        self._waiting.append(waiting)
        self._bytes += waiting.size
        self._wake.set()
        return waiting.future

    async def run(self) -> None:
        """Commit batches for ever; cancel to stop. Several may run at once, one per connection."""
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            batch = self._take()
            try:
                outcomes = await self._commit([waiting.effect for waiting in batch])
            except BaseException as failure:
                for waiting in batch:
                    _settle(waiting, failure if isinstance(failure, Exception) else asyncio.CancelledError())
                raise
            self.batches += 1
            self.events += len(batch)
            for waiting, outcome in zip(batch, outcomes, strict=True):
                _settle(waiting, outcome)

    def _take(self) -> list[Waiting]:
        batch: list[Waiting] = []
        later: list[Waiting] = []
        taken: set[tuple[str, str, str] | str] = set()
        size = 0
        while self._waiting and len(batch) < MAX_BATCH_EVENTS and size < MAX_BATCH_BYTES:
            waiting = self._waiting.popleft()
            effect = waiting.effect
            names: set[tuple[str, str, str] | str] = {effect.event_id}
            if effect.nonce is not None:
                names.add((effect.channel_id, effect.sender_id, effect.nonce))
            if names & taken:
                later.append(waiting)
                continue
            taken |= names
            batch.append(waiting)
            size += waiting.size
        self._waiting.extendleft(reversed(later))
        self._bytes -= sum(waiting.size for waiting in batch)
        return batch


def _settle(waiting: Waiting, outcome: Outcome | asyncio.CancelledError) -> None:
    if waiting.future.done():
        return  # its caller was cancelled; the event is stored all the same
    if isinstance(outcome, asyncio.CancelledError):
        waiting.future.cancel()
    elif isinstance(outcome, Exception):
        waiting.future.set_exception(outcome)
    else:
        waiting.future.set_result(outcome)

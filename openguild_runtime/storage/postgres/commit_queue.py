"""Group commit: appends that wait together are stored by one transaction (architecture, "Many replicas").

While one batch is on its way to the disk the next one gathers, so under load the cost of a commit is shared, and an
append alone starts at once. Channels take turns, so a busy one does not hold up the others; within a channel appends
keep their order. The queue is bounded in events and bytes, and in events per channel; beyond it an append is refused,
not kept.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from openguild_proto.effects import Appended, AppendEvent, AppendFailure, Overloaded, StorageUnavailable

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
    earlier one stored. `share`: how many queues divide the bounds among them.
    """

    def __init__(self, commit: Commit, *, share: int = 1) -> None:
        self._commit = commit
        self._channels: dict[str, deque[Waiting]] = {}  # the next turn is the first one's
        self._events = 0
        self._bytes = 0
        self._max_events = MAX_QUEUE_EVENTS // share
        self._max_bytes = MAX_QUEUE_BYTES // share
        self._max_channel_events = self._max_events // 2  # so that one channel's flood leaves room for the others
        self._wake = asyncio.Event()
        self._closed = False
        self.batches = 0
        self.events = 0

    def __len__(self) -> int:
        return self._events

    @property
    def bytes(self) -> int:
        return self._bytes

    def submit(self, effect: AppendEvent) -> asyncio.Future[Appended | AppendFailure]:
        """Queue an append; await the result. Raises Overloaded at a bound, with nothing done."""
        if self._closed:
            raise StorageUnavailable
        waiting = Waiting(effect, asyncio.get_running_loop().create_future())
        if self._events >= self._max_events or self._bytes + waiting.size > self._max_bytes:
            raise Overloaded
        line = self._channels.get(effect.channel_id)
        if line is None:
            line = self._channels[effect.channel_id] = deque()
        elif len(line) >= self._max_channel_events:
            raise Overloaded
        line.append(waiting)
        self._events += 1
        self._bytes += waiting.size
        self._wake.set()
        return waiting.future

    def close(self) -> None:
        """No batch will be committed any more: whoever waits is told so, nobody waits for ever."""
        self._closed = True
        lines, self._channels = self._channels, {}
        self._events = self._bytes = 0
        for line in lines.values():
            for waiting in line:
                _settle(waiting, StorageUnavailable())

    async def run(self) -> None:
        """Commit batches for ever; cancel to stop. Several may run at once, one per connection."""
        while True:
            while not self._events:
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
        """One append of each channel in turn, until the batch is full."""
        batch: list[Waiting] = []
        taken: set[tuple[str, str, str] | str] = set()
        size = 0
        turns = deque(self._channels)
        while turns and len(batch) < MAX_BATCH_EVENTS and size < MAX_BATCH_BYTES:
            channel_id = turns.popleft()
            line = self._channels.pop(channel_id)
            waiting = line[0]
            effect = waiting.effect
            names: set[tuple[str, str, str] | str] = {effect.event_id}
            if effect.nonce is not None:
                names.add((channel_id, effect.sender_id, effect.nonce))
            if names & taken:
                self._channels[channel_id] = line  # the rest of this channel waits for the next batch
                continue
            line.popleft()
            taken |= names
            batch.append(waiting)
            size += waiting.size
            if line:
                self._channels[channel_id] = line  # behind those that have not had a turn
                turns.append(channel_id)
        self._events -= len(batch)
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

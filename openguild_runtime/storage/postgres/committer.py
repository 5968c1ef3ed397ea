"""Commits batches of appends. An event that cannot be stored fails alone, and a locked channel delays others briefly."""

from __future__ import annotations

import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import asyncpg
import structlog

from openguild_proto.effects import StorageUnavailable
from openguild_proto.effects.channels import Appended, AppendEvent, AppendFailure, Unchanged
from openguild_proto.errors import LocalProtocolError
from openguild_proto.log.commits import Attempt, CommitPlan, Outcome
from openguild_runtime.storage.postgres.append import append_batch
from openguild_runtime.storage.postgres.commit_queue import CommitQueue
from openguild_runtime.storage.postgres.faults import Locked
from openguild_runtime.storage.postgres.values import Connection

log = structlog.get_logger("openguild.storage")


class Borrow(Protocol):
    """Runs `use` with a connection. Raises StorageUnavailable, its subclass Locked, and errors of the statement itself."""

    async def __call__(self, use: Callable[[Connection], Awaitable[Sequence[Outcome]]]) -> Sequence[Outcome]: ...


class Committer:
    """`count` queues, each for its share of the channels, so that concurrent batches do not wait for each other's row locks.

    `on_batch(events, seconds)` is called after each commit.
    """

    def __init__(self, borrow: Borrow, on_batch: Callable[[int, float], None], *, count: int) -> None:
        self._borrow = borrow
        self._on_batch = on_batch
        self.queues = [CommitQueue(self._commit, share=count) for _ in range(count)]

    def submit(self, effect: AppendEvent) -> Awaitable[Appended | Unchanged | AppendFailure]:
        """Queue an append, and return its awaitable result. Raises Overloaded and StorageUnavailable."""
        return self._queue_of(effect.channel_id).submit(effect)

    def close(self) -> None:
        """Finish the running batches, and fail the queued appends."""
        for queue in self.queues:
            queue.close()

    def refuse_waiting(self) -> None:
        """Fail the queued appends."""
        for queue in self.queues:
            queue.refuse_waiting()

    def __len__(self) -> int:
        """Return the number of queued appends."""
        return sum(len(queue) for queue in self.queues)

    def _queue_of(self, channel_id: str) -> CommitQueue:
        return self.queues[zlib.crc32(channel_id.encode()) % len(self.queues)]

    async def _commit(self, batch: Sequence[AppendEvent]) -> Sequence[Outcome]:
        """Store a batch; return one outcome for each append, in order."""
        queue = self._queue_of(batch[0].channel_id)
        plan = CommitPlan(batch, suspect=queue.suspects(batch[0].channel_id))
        now = time.monotonic()
        while (attempt := plan.next_attempt(now)) is not None:
            started = now
            try:
                outcomes = await self._store(attempt)
            except (StorageUnavailable, asyncpg.PostgresError) as failure:
                now = time.monotonic()
                _failed(plan, queue, failure, now)
            else:
                now = time.monotonic()
                self._on_batch(len(attempt.appends), now - started)
                queue.stored(attempt.appends[0].channel_id)
                plan.stored(outcomes)
        return plan.outcomes

    async def _store(self, attempt: Attempt) -> Sequence[Outcome]:
        return await self._borrow(lambda connection: append_batch(connection, attempt.appends, attempt.lock_timeout_ms))


def _failed(
    plan: CommitPlan, queue: CommitQueue, failure: StorageUnavailable | asyncpg.PostgresError, now: float
) -> None:
    """Report a failed attempt to the plan, and handle its result."""
    match failure:
        case Locked():
            channel_id = plan.locked(now)
            if channel_id is not None:
                log.warning(
                    "a channel is locked in the database: its posts are refused for a moment", channel_id=channel_id
                )
                queue.block(channel_id)
        case StorageUnavailable():
            plan.unavailable(failure)
        case _:  # PostgreSQL refuses this event. Its message may quote the data, so it is not logged.
            kind = type(failure).__name__
            event = plan.refused(LocalProtocolError(f"the database refuses the event: {kind}"), now)
            if event is not None:
                log.error("an event cannot be stored", kind=kind, channel_id=event.channel_id, event_id=event.event_id)

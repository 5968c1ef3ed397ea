"""Commits batches of appends. An event that cannot be stored fails alone; a locked channel delays others only briefly."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import asyncpg
import structlog

from openguild_proto.effects import Overloaded, StorageUnavailable
from openguild_proto.effects.channels import Appended, AppendEvent, AppendFailure, Unchanged
from openguild_proto.errors import LocalProtocolError
from openguild_proto.log.appends import AppendQueue
from openguild_proto.log.commits import Attempt, CommitPlan, Outcome
from openguild_proto.policy.log_throttle import LogThrottle
from openguild_runtime.storage.postgres.batcher import Batcher, settle_all
from openguild_runtime.storage.postgres.faults import Locked

Store: TypeAlias = Callable[[Attempt], Awaitable[Sequence[Outcome]]]
OnBatch: TypeAlias = Callable[[int, float], None]

# between two log lines about locked channels, which are retried every second and may be many
TELL_SECS = 10.0

log = structlog.get_logger("openguild.storage")


class Committer(Batcher[AppendEvent, Appended | Unchanged | AppendFailure]):
    """Group commit: one transaction stores the appends that are queued together (PROTOCOL 7.1.2).

    `store(attempt)` stores them, with one outcome for each, in order. It raises StorageUnavailable, its subclass Locked, and
    PostgresError. `on_batch(events, seconds)` is called after each commit. AppendQueue explains `share` and decides the order.
    """

    def __init__(self, store: Store, on_batch: OnBatch, *, share: int = 1) -> None:
        self._store = store
        self._on_batch = on_batch
        self._appends: AppendQueue[asyncio.Future[Appended | Unchanged | AppendFailure]] = AppendQueue(share=share)
        self._locked = LogThrottle(TELL_SECS)
        super().__init__(self._appends, self._commit)

    async def _commit(self, batch: Sequence[AppendEvent]) -> Sequence[Outcome]:
        plan = CommitPlan(batch, suspect=self._appends.suspects(batch[0]))
        now = time.monotonic()
        while (attempt := plan.next_attempt(now)) is not None:
            started = now
            try:
                outcomes = await self._store(attempt)
            except (StorageUnavailable, asyncpg.PostgresError) as failure:
                now = time.monotonic()
                self._failed(plan, failure, now)
            else:
                now = time.monotonic()
                self._on_batch(len(attempt.appends), now - started)
                self._appends.stored(attempt.appends[0])
                plan.stored(outcomes)
        return plan.outcomes

    def _failed(self, plan: CommitPlan, failure: StorageUnavailable | asyncpg.PostgresError, now: float) -> None:
        """Report a failed attempt to the plan, and handle its result."""
        match failure:
            case Locked(users=users):
                channel_id = plan.locked(now, users)
                for user_id in users:
                    self._tell_locked("a user is locked in the database: their posts are", now, user_id=user_id)
                    settle_all(self._appends.block_author(user_id, now), Overloaded())
                if channel_id is not None:
                    self._tell_locked("a channel is locked in the database: its posts are", now, channel_id=channel_id)
                    settle_all(self._appends.block_channel(channel_id, now), Overloaded())
            case StorageUnavailable():
                plan.unavailable(failure)
            case _:  # PostgreSQL refuses this event. Its message may quote the data, so it is not logged.
                kind = type(failure).__name__
                event = plan.refused(LocalProtocolError(f"the database refuses the event: {kind}"), now)
                if event is not None:
                    log.error(
                        "an event cannot be stored", kind=kind, channel_id=event.channel_id, event_id=event.event_id
                    )

    def _tell_locked(self, what: str, now: float, **fields: str) -> None:
        suppressed = self._locked.due(what, now)
        if suppressed is not None:
            log.warning(f"{what} refused for a moment", **fields, suppressed=suppressed)


class Committers:
    """Several committers, each for its share of the channels, so that they do not wait for each other's row locks."""

    def __init__(self, store: Store, on_batch: OnBatch, *, count: int) -> None:
        self.each = [Committer(store, on_batch, share=count) for _ in range(count)]

    def submit(self, effect: AppendEvent) -> Awaitable[Appended | Unchanged | AppendFailure]:
        """Queue an append and return its awaitable result. Raises Overloaded and StorageUnavailable."""
        return self.each[zlib.crc32(effect.channel_id.encode()) % len(self.each)].submit(effect)

    def close(self) -> None:
        """Fail the queued appends and refuse new ones; running batches are finished."""
        for committer in self.each:
            committer.close()

    def refuse_waiting(self) -> None:
        """Fail the queued appends."""
        for committer in self.each:
            committer.refuse_waiting()

    def __len__(self) -> int:
        """Return the number of queued appends."""
        return sum(len(committer) for committer in self.each)

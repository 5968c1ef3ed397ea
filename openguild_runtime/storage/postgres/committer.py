"""Commits batches of appends: what cannot be stored fails alone, and a channel that is locked holds up nobody for long."""

from __future__ import annotations

import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import asyncpg
import structlog

from openguild_proto.effects import Appended, AppendEvent, AppendFailure, Overloaded, StorageUnavailable
from openguild_proto.errors import LocalProtocolError
from openguild_runtime.storage.postgres.append import append_batch
from openguild_runtime.storage.postgres.commit_queue import CommitQueue, Outcome
from openguild_runtime.storage.postgres.faults import Locked
from openguild_runtime.storage.postgres.values import Connection

# A lock that a batch waits for is usually another replica's commit to the same channel: milliseconds, and on a disk
# that stalls some hundred. Whoever holds it longer deletes the guild, or is a person at psql.
PATIENCE_MS = 500
PROBE_PATIENCE_MS = 50  # for a channel that is already known, or likely, to be locked
RETRY_LIMIT_SECS = 1.0  # for all channels of a batch together: the whole table may be locked

log = structlog.get_logger("openguild.storage")


class Borrow(Protocol):
    """Runs `use` with a connection; raises StorageUnavailable, its kind Locked, and what this effect did wrong."""

    async def __call__(self, use: Callable[[Connection], Awaitable[Sequence[Outcome]]]) -> Sequence[Outcome]: ...


class Committer:
    """`count` queues, each with its channels: batches that are stored at once never wait for each other's row locks.

    `on_batch(events, seconds)` is called after each commit.
    """

    def __init__(self, borrow: Borrow, on_batch: Callable[[int, float], None], *, count: int) -> None:
        self._borrow = borrow
        self._on_batch = on_batch
        self.queues = [CommitQueue(self._commit, share=count) for _ in range(count)]

    def submit(self, effect: AppendEvent) -> Awaitable[Appended | AppendFailure]:
        """Raises Overloaded and StorageUnavailable as `CommitQueue.submit` does."""
        return self._queue_of(effect.channel_id).submit(effect)

    def close(self) -> None:
        """Finish the batches under way, refuse what waits."""
        for queue in self.queues:
            queue.close()

    def refuse_waiting(self) -> None:
        """Refuse what waits."""
        for queue in self.queues:
            queue.refuse_waiting()

    def __len__(self) -> int:
        """Appends that wait for the next commit."""
        return sum(len(queue) for queue in self.queues)

    def _queue_of(self, channel_id: str) -> CommitQueue:
        return self.queues[zlib.crc32(channel_id.encode()) % len(self.queues)]

    async def _commit(self, batch: Sequence[AppendEvent]) -> Sequence[Outcome]:
        suspect = self._queue_of(batch[0].channel_id).suspects(batch[0].channel_id)
        return await self._store(batch, PROBE_PATIENCE_MS if suspect else PATIENCE_MS)

    async def _store(self, batch: Sequence[AppendEvent], patience_ms: int) -> Sequence[Outcome]:
        """One outcome for each, in order. Raises StorageUnavailable: the fate of the whole batch is unknown."""
        started = time.monotonic()
        parts: Sequence[Sequence[int]]
        try:
            outcomes = await self._borrow(lambda connection: append_batch(connection, batch, patience_ms))
        except Locked:
            parts = _by_channel(batch)
            if len(parts) == 1:
                return self._blocked(batch)
            patience_ms = PROBE_PATIENCE_MS
        except asyncpg.PostgresError as failure:
            if len(batch) == 1:
                return [_refused(batch[0], failure)]
            half = len(batch) // 2
            parts = [range(half), range(half, len(batch))]
        else:
            self._on_batch(len(batch), time.monotonic() - started)
            self._queue_of(batch[0].channel_id).trust(batch[0].channel_id)
            return outcomes
        return await self._store_parts(batch, parts, patience_ms)

    async def _store_parts(
        self, batch: Sequence[AppendEvent], parts: Sequence[Sequence[int]], patience_ms: int
    ) -> Sequence[Outcome]:
        """Each part by itself, in order; a part is the places in `batch` of its events."""
        outcomes: list[Outcome] = [Overloaded() for _ in batch]
        give_up = time.monotonic() + RETRY_LIMIT_SECS
        for part in parts:
            if time.monotonic() >= give_up:
                break
            found: Sequence[Outcome]
            try:
                found = await self._store([batch[place] for place in part], patience_ms)
            except StorageUnavailable as away:  # what was stored before it is stored, and is to be published
                found = [away for _ in part]
            for place, outcome in zip(part, found, strict=True):
                outcomes[place] = outcome
        return outcomes

    def _blocked(self, batch: Sequence[AppendEvent]) -> Sequence[Outcome]:
        channel_id = batch[0].channel_id
        log.warning("a channel is locked in the database: its posts are refused for a moment", channel_id=channel_id)
        self._queue_of(channel_id).block(channel_id)
        return [Overloaded() for _ in batch]


def _by_channel(batch: Sequence[AppendEvent]) -> list[list[int]]:
    places: dict[str, list[int]] = {}
    for place, effect in enumerate(batch):
        places.setdefault(effect.channel_id, []).append(place)
    return list(places.values())


def _refused(effect: AppendEvent, failure: asyncpg.PostgresError) -> Exception:
    """PostgreSQL will never store this event. Its text quotes what it refuses, so it goes nowhere."""
    kind = type(failure).__name__
    log.error("an event cannot be stored", kind=kind, channel_id=effect.channel_id, event_id=effect.event_id)
    return LocalProtocolError(f"the database refuses the event: {kind}")

"""A database that commits, aborts, or does either and loses the answer; all replicas share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar, cast

import anyio
from anyio.abc import TaskGroup

from openguild_proto.effects import StorageEffect, StorageUnavailable
from openguild_proto.effects.channels import AppendEvent, FindChannelAccess
from openguild_proto.effects.process import StorageHealth
from openguild_proto.effects.replica import ReadControlHead, ReadControls, ReadHeads, ReadHistory, ReadVisible
from openguild_proto.errors import Refusal
from openguild_proto.log.commits import Attempt, Outcome
from openguild_proto.memory import MemoryTables
from openguild_proto.records import ChannelAccess
from openguild_runtime.config.pool_shares import ACCESS_READERS, COMMITTERS
from openguild_runtime.storage.base import Storage, StorageStats
from openguild_runtime.storage.postgres.access_batcher import AccessBatcher
from openguild_runtime.storage.postgres.committer import Committers

T = TypeVar("T")

REPLICA_READS = (ReadHeads, ReadVisible, ReadControlHead, ReadControls, ReadHistory)


class SimDatabase:
    """`abort_share` and `unknown_share`: how often a transaction fails before the commit, or loses its answer after it."""

    def __init__(self, tables: MemoryTables, rng: Random, abort_share: float, unknown_share: float) -> None:
        self.tables = tables
        self.rng = rng
        self.abort_share = abort_share
        self.unknown_share = unknown_share
        self.down = False

    def delay(self) -> float:
        return self.rng.choice((0.0005, 0.001, 0.002, 0.01, 0.05))


def _stored(tables: MemoryTables, effect: AppendEvent) -> Outcome:
    try:
        return tables.perform(effect)
    except Refusal as refusal:  # only this post is refused; the others of the batch are stored
        return refusal


class SimStorage(Storage):
    """One replica's connections, with the same queues as the real storage.

    `effects` counts the requested ones; `at_effect` may crash the replica there.
    """

    def __init__(self, database: SimDatabase, tasks: TaskGroup) -> None:
        super().__init__()
        self._database = database
        self._tasks = tasks
        self._committers = Committers(self._store, lambda events, secs: None, count=COMMITTERS)
        self._accesses = AccessBatcher(self._find_accesses)
        self.effects = 0
        self.at_effect: Callable[[int, str], None] = lambda number, moment: None
        self.early: Callable[[Sequence[AppendEvent]], None] = lambda batch: None  # hook for planted bugs
        self.dead = False

    async def start(self) -> None:
        while not (await self.check()).database:  # noqa: ASYNC110 - simulated time costs nothing
            await anyio.sleep(0.2)
        for committer in self._committers.each:
            self._tasks.start_soon(committer.run)
        for _ in range(ACCESS_READERS):
            self._tasks.start_soon(self._accesses.run)

    async def aclose(self) -> None:
        self.die()

    def die(self) -> None:
        self.dead = True
        self._committers.close()
        self._accesses.close()

    async def perform(self, effect: StorageEffect[T]) -> T:
        if isinstance(effect, AppendEvent):
            return cast("T", await self._committers.submit(effect))
        if isinstance(effect, FindChannelAccess):
            return cast("T", await self._accesses.submit(effect))
        return await self._transact(
            lambda: self._database.tables.perform(effect), reads_only=isinstance(effect, REPLICA_READS)
        )

    async def _store(self, attempt: Attempt) -> Sequence[Outcome]:
        self.early(attempt.appends)
        tables = self._database.tables
        return await self._transact(lambda: [_stored(tables, effect) for effect in attempt.appends])

    async def _find_accesses(self, questions: Sequence[FindChannelAccess]) -> Sequence[ChannelAccess | None]:
        return await self._transact(lambda: [self._database.tables.perform(question) for question in questions])

    async def _transact(self, action: Callable[[], T], *, reads_only: bool = False) -> T:
        """Send a transaction, perform it or not, and return the answer; it may fail at each of these steps."""
        database = self._database
        if not reads_only:
            self.effects += 1
            self.at_effect(self.effects, "before")
        await anyio.sleep(database.delay())
        if self.dead or database.down or database.rng.random() < database.abort_share:
            raise StorageUnavailable
        before = database.tables.control_head()
        result = action()
        records = database.tables.control_since(before, database.tables.control_head() - before)
        if not reads_only:
            self.at_effect(self.effects, "after")
        lost = database.rng.random() < database.unknown_share
        await anyio.sleep(database.delay())
        if self.dead or lost:
            raise StorageUnavailable
        for record in records:
            self.handler.control_stored(record)
        return result

    async def check(self) -> StorageHealth:
        up = not (self._database.down or self.dead)
        return StorageHealth(database=up, migrations=up)

    def stats(self) -> StorageStats:
        return StorageStats(queue_events=len(self._committers))

    @property
    def queue_bytes(self) -> int:
        return sum(committer.bytes for committer in self._committers.each)

"""Reads from standbys of the primary (openguild_proto/policy/standbys.py): a pool for each, and checks of its WAL position."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import anyio
import anyio.lowlevel
import asyncpg
import structlog
from anyio.abc import TaskGroup

from openguild_proto.effects import Overloaded, StorageEffect, StorageUnavailable
from openguild_proto.effects.channels import FindChannelAccess, PageBounds
from openguild_proto.limits import ACCESS_CHECK_BYTES, MAX_QUEUED_ACCESS_CHECKS
from openguild_proto.policy.batches import ArrivalQueue
from openguild_proto.policy.standbys import Standbys, StandbyState, StandbyStats, WalPosition, compare, next_pause
from openguild_runtime.storage.postgres.batcher import Batcher
from openguild_runtime.storage.postgres.fair_slots import FairSlots
from openguild_runtime.storage.postgres.history import LINEAGE, OID, UNSUPPORTED
from openguild_runtime.storage.postgres.page_groups import PageGroups
from openguild_runtime.storage.postgres.pool import Pool
from openguild_runtime.storage.postgres.read_groups import ReadGroups
from openguild_runtime.storage.postgres.reads import read
from openguild_runtime.storage.postgres.values import Connection
from openguild_runtime.system.background import log_exceptions

T = TypeVar("T")

WATCH_SECS = 1.0  # between two checks of a standby
QUESTIONS = 1  # concurrent checks for reads of a standby; reads that arrive meanwhile share the next one

# The flushed position: acknowledged commits are flushed, and standbys do not get WAL that is inserted but not flushed.
PRIMARY_PLACE = f"""
SELECT {LINEAGE} || ' ' || {OID} AS lineage,
    CASE WHEN NOT pg_is_in_recovery() THEN (pg_current_wal_flush_lsn() - '0/0')::bigint ELSE 0 END AS position
"""
# A promoted standby has no lineage and so serves no reads. The oid excludes other databases of the cluster.
STANDBY_PLACE = f"""
SELECT CASE WHEN pg_is_in_recovery() THEN lineage || ' ' || {OID} END AS lineage,
    coalesce(pg_last_wal_replay_lsn() - '0/0', 0)::bigint AS position FROM log_history
"""

log = structlog.get_logger("openguild.storage")


Alone: TypeAlias = Callable[[Callable[[Connection], Awaitable[Any]]], Callable[[Connection], Awaitable[Any]]]


class Answered(NamedTuple, Generic[T]):
    """The answer of a standby."""

    result: T


async def read_primary(connection: Connection) -> WalPosition:
    """Return the primary's WAL position, without lineage if the database does not permit the query, as some services."""
    try:
        return await _read_place(connection, PRIMARY_PLACE)
    except UNSUPPORTED:
        return WalPosition(None, 0)


async def read_standby(connection: Connection) -> WalPosition:
    """Return a standby's WAL position."""
    return await _read_place(connection, STANDBY_PLACE)


async def _read_place(connection: Connection, statement: str) -> WalPosition:
    row = await connection.fetchrow(statement)
    return WalPosition(row["lineage"], row["position"]) if row is not None else WalPosition(None, 0)


class _Standby:
    """One standby. `questions` batches checks whether it has caught up with the primary."""

    def __init__(self, pool: Pool, places: int, ask: Callable[[Pool], Awaitable[StandbyState]], alone: Alone) -> None:
        async def ask_for_all(waiting: Sequence[None]) -> list[StandbyState]:
            return [await ask(pool)] * len(waiting)

        self.pool = pool
        self._alone = alone
        self._pages = PageGroups(ReadGroups(self._borrow))
        self._places = FairSlots(places, each=max(1, places - 1))
        self.questions: Batcher[None, StandbyState] = Batcher(
            ArrivalQueue(max_items=MAX_QUEUED_ACCESS_CHECKS, item_bytes=ACCESS_CHECK_BYTES), ask_for_all
        )
        self.reads = self.missed = 0

    async def perform(self, effect: StorageEffect[Any]) -> Any:
        """Read from the standby, without checking its position."""
        match effect:
            case FindChannelAccess(page=PageBounds() as page):
                return await self._pages.find(effect, page)
        return await self._borrow(lambda connection: read(connection, effect), effect.in_turns_of)

    async def _borrow(self, use: Callable[[Connection], Awaitable[Any]], user_id: str) -> Any:
        await anyio.lowlevel.checkpoint()  # so that readers that shared a check also share a read
        return await self._places.run(
            user_id, lambda: self.pool.lend(self._alone(use), writes=False), self.pool.deadlines
        )


class StandbyReaders:
    """Serves reads from standbys, each with its pool of `pool_size` connections.

    `ask_primary()` returns the primary's current position, `alone(use)` wraps the use of a single statement. A read waits at most
    `wait_secs` for a standby before it goes to the primary.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        tasks: TaskGroup,
        *,
        pool_size: int,
        wait_secs: float,
        ask_primary: Callable[[], Awaitable[WalPosition]],
        alone: Alone,
    ) -> None:
        self._tasks = tasks
        self._wait_secs = wait_secs
        self._ask_primary = ask_primary
        self._rules = Standbys(len(pools))
        places = max(1, pool_size - QUESTIONS - 1)  # without those for checks
        self._standbys = [_Standby(pool, places, self._ask, alone) for pool in pools]
        self._scope = anyio.CancelScope()
        self._is_closed = False

    def __bool__(self) -> bool:
        """Return whether standbys are configured."""
        return bool(self._standbys)

    async def open(self) -> None:
        """Create the pools, without connecting, and start the checks. Raises ValueError for an invalid URL."""
        for standby in self._standbys:
            await standby.pool.open()
        if self:
            self._tasks.start_soon(self._run)

    async def aclose(self) -> None:
        self._is_closed = True
        for standby in self._standbys:
            standby.questions.close()
        async with anyio.create_task_group() as closing:
            for standby in self._standbys:
                closing.start_soon(standby.pool.aclose)
        self._scope.cancel()

    def cut(self) -> None:
        """Close all connections now."""
        for standby in self._standbys:
            standby.pool.cut()

    def stats(self) -> tuple[StandbyStats, ...]:
        return tuple(
            StandbyStats(state, standby.reads, standby.missed)
            for state, standby in zip(self._rules.states, self._standbys, strict=True)
        )

    async def read(self, effect: StorageEffect[T]) -> Answered[T] | None:
        """Read from a standby that has all commits acknowledged so far; return None if the primary has to serve the read."""
        number = self._rules.choose()
        if number is None:
            return None
        standby = self._standbys[number]
        state = StandbyState.BEHIND
        with anyio.move_on_after(self._wait_secs):
            try:
                state = await standby.questions.submit(None)
            except StorageUnavailable:  # the primary's position is not known
                return None
        if state is StandbyState.SERVING:
            try:
                answer = Answered(await standby.perform(effect))
            except Overloaded:  # only this read failed: it conflicts with the replay, or messages are not indexed yet
                pass
            except StorageUnavailable:
                state = StandbyState.FAILED
            else:
                standby.reads += 1
                return answer
        standby.missed += 1
        self._found(number, state)
        return None

    async def _ask(self, pool: Pool) -> StandbyState:
        """Wait until a standby has caught up with the primary's current position, within the time limit.

        Raises StorageUnavailable if the primary's position is not known.
        """
        wanted = await self._ask_primary()
        began, pause = time.monotonic(), 0.0
        while True:
            try:
                found = await pool.lend(read_standby, writes=False)
            except (StorageUnavailable, asyncpg.PostgresError):
                return StandbyState.FAILED
            state = compare(wanted, found)
            longer = next_pause(time.monotonic() - began, pause, self._wait_secs)
            if state is not StandbyState.BEHIND or longer is None:
                return state
            pause = longer
            await anyio.sleep(pause)

    # --- watching ----------------------------------------------------------------------------------

    async def _run(self) -> None:
        with self._scope:
            async with anyio.create_task_group() as tasks:
                for number, standby in enumerate(self._standbys):
                    tasks.start_soon(self._watch, number)
                    for _ in range(QUESTIONS):
                        tasks.start_soon(standby.questions.run)

    async def _watch(self, number: int) -> None:
        """Check a standby until cancelled, so that it returns to service, and metrics are right without reads."""
        while True:
            with log_exceptions("looking at a standby"):
                state = await self._look(self._standbys[number])
                if state is not None:
                    self._found(number, state)
            await anyio.sleep(WATCH_SECS)

    async def _look(self, standby: _Standby) -> StandbyState | None:
        """Return the state of a standby, or None if the primary's position is not known."""
        pool = standby.pool
        look = partial(pool.connected, read_standby) if pool.silent else partial(pool.lend, read_standby, writes=False)
        try:
            await pool.probe(lambda _timer: look())  # with a time limit, in case it has stopped responding
        except Exception as failure:
            if not isinstance(failure, StorageUnavailable) and pool.cause_of(failure) is None:
                raise
            return StandbyState.FAILED
        try:
            return await standby.questions.submit(None)
        except StorageUnavailable:
            return None

    def _found(self, number: int, state: StandbyState) -> None:
        if self._is_closed or not self._rules.found(number, state):
            return
        if state is StandbyState.SERVING:
            log.info("a standby serves reads", standby=number)
        else:
            log.warning(
                f"a standby is not used, its reads go to other servers: {state.value}", standby=number, state=state.name
            )

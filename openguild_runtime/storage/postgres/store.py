"""The store in PostgreSQL: each effect is one transaction, and appends are group-committed.

Lost connections are replaced at the next use. Appends, access checks, the control log and the health check have reserved
connections. Failures of the driver are raised as `StorageUnavailable`; their texts are only logged, without parameters or
credentials.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import anyio
import structlog
from anyio.abc import TaskGroup

from openguild_proto.effects import StorageEffect, StorageUnavailable
from openguild_proto.effects.channels import Appended, AppendEvent, AppendFailure, FindChannelAccess, Unchanged
from openguild_proto.effects.mirrors import (
    JoinFromServer,
    MirrorEvents,
    MirrorOutcome,
    ReadSnapshot,
    RemoteJoin,
    shown_in,
)
from openguild_proto.effects.performs import collect, performs
from openguild_proto.effects.process import StorageHealth
from openguild_proto.effects.replica import ReadHistory
from openguild_proto.effects.search import IndexMessages, SearchHit, SearchMessages, SearchTooWide
from openguild_proto.effects.standby import may_use_standby
from openguild_proto.log.commits import Attempt, Outcome
from openguild_proto.mirror_records import Snapshot
from openguild_proto.records import ChannelAccess, History, LimitReached
from openguild_proto.schemas.log_writer import LogWriter
from openguild_runtime.config.pool_shares import ACCESS_READERS, COMMITTERS, SEARCHERS, WATCHERS
from openguild_runtime.config.server_config import DatabaseSection
from openguild_runtime.observability.database_causes import CAUSES, explain
from openguild_runtime.storage import fitness
from openguild_runtime.storage.base import Storage, StorageStats
from openguild_runtime.storage.postgres import access, history, search
from openguild_runtime.storage.postgres.access_batcher import AccessBatcher
from openguild_runtime.storage.postgres.append import append_batch, locked_authors
from openguild_runtime.storage.postgres.committer import Committers
from openguild_runtime.storage.postgres.fair_slots import FairSlots, lend_in_turn
from openguild_runtime.storage.postgres.faults import Locked
from openguild_runtime.storage.postgres.health import DatabaseHealth
from openguild_runtime.storage.postgres.mirror_events import mirror_events
from openguild_runtime.storage.postgres.mirror_posts import MirrorPosts
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.page_groups import PageGroups
from openguild_runtime.storage.postgres.performers import MODULES
from openguild_runtime.storage.postgres.pool import Pool
from openguild_runtime.storage.postgres.read_groups import ReadGroups
from openguild_runtime.storage.postgres.remote_members import join_from_server, move_cursors, read_snapshot
from openguild_runtime.storage.postgres.search_index import SearchIndexer
from openguild_runtime.storage.postgres.session_settings import session_settings
from openguild_runtime.storage.postgres.standbys import StandbyReaders, read_primary
from openguild_runtime.storage.postgres.transaction import Transaction, run_transaction
from openguild_runtime.storage.postgres.values import Connection

T = TypeVar("T")

FINISH_LIMIT_SECS = 1.0  # for running batches at shutdown
MAX_BACKOFF_SECS = 2.0
LONG_SECS = 600.0  # for Mode.LONG: a few million events

log = structlog.get_logger("openguild.storage")


class PostgresStorage(Storage):
    """The store in PostgreSQL. `database_url` is a libpq URL. `tasks` runs the group commit until `aclose`.

    `pool_size` is the maximum of connections, some of which are reserved (none below MIN_POOL_SIZE). Standbys have pools of the
    same size. A `statement_cache_size` of 0 is for PgBouncer in transaction mode: no prepared statements and no session settings.
    `statement_timeout_secs` then applies in this process only (on the server, use `ALTER ROLE … SET statement_timeout`).
    """

    def __init__(
        self,
        database_url: str,
        tasks: TaskGroup,
        *,
        pool_size: int = DatabaseSection.pool_size,
        statement_timeout_secs: float = DatabaseSection.statement_timeout_secs,
        statement_cache_size: int = DatabaseSection.statement_cache_size,
        committers: int = COMMITTERS,
        writer: LogWriter | None = None,
        standby_urls: Sequence[str] = (),
        standby_wait_secs: float = DatabaseSection.replica_wait_secs,
    ) -> None:
        super().__init__()
        self._writer = writer or LogWriter()
        self._server_name = None if writer is None else writer.server_name  # None in tests and commands
        self._tasks = tasks
        pool = partial(
            Pool,
            tasks=tasks,
            size=pool_size,
            limit_secs=statement_timeout_secs + 1,  # the server times out first, with a reason
            cache_size=statement_cache_size,
            settings=session_settings(
                statement_timeout_secs, pooled=statement_cache_size == 0, server_name=self._server_name
            ),
        )
        self._pool = pool(database_url, on_fault=self._failed, on_silence=self._refuse_waiting)
        self._standbys = StandbyReaders(
            [pool(url, title=f"standby {number}") for number, url in enumerate(standby_urls)],
            tasks,
            pool_size=pool_size,
            wait_secs=standby_wait_secs,
            ask_primary=lambda: lend_in_turn(self._pool, self._watching, read_primary),
            alone=self._alone,
        )
        self._sets_isolation = False  # whether single statements need a transaction for READ COMMITTED
        self._history = history.HistoryReader()
        self._committers = Committers(self._store, self._committed, count=committers)
        self._accesses = AccessBatcher(self._find_accesses)
        self._groups = ReadGroups(lambda use, user_id: self._with_connection(self._alone(use), user_id=user_id))
        self._pages = PageGroups(self._groups)
        self._workers = anyio.CancelScope()
        self._workers_ended: anyio.Event | None = None
        reserved = committers + ACCESS_READERS + WATCHERS  # each worker uses one connection at a time
        shared = max(1, pool_size - reserved)
        self._shared = FairSlots(shared, each=max(1, shared - 1))
        self._watching = anyio.Semaphore(WATCHERS, fast_acquire=True)
        self._health = DatabaseHealth(self._pool, self._watching)
        self._searching = FairSlots(SEARCHERS)
        self._indexer = SearchIndexer()
        self._mirror_posts = MirrorPosts()

    # --- start and stop ----------------------------------------------------------------------------

    async def start(self) -> None:
        await self.open()
        attempt, fit = 0, False
        logged: str | None = None
        while True:
            health = await self.check()
            fit = fit or (health.database and await self._is_fit())
            found = self._health.schema
            if health.usable and fit:
                if found is not None and found.is_later:
                    log.warning("the schema is of a later release, which this release can use", revision=found.revision)
                return
            why = (found.problem if found is not None and health.cause == "migrations" else None) or explain(
                health.cause
            )
            if why != logged:
                logged = why
                log.warning(f"waiting for the database: {why}", cause=health.cause, **self._health.details)
            attempt += 1
            await anyio.sleep(random.uniform(0.1, min(MAX_BACKOFF_SECS, 0.2 * 2 ** min(attempt, 8))))  # noqa: S311 - jitter

    async def _is_fit(self) -> bool:
        """Check the requirements; return False if the database did not respond. Raises DatabaseUnfit."""
        try:
            found = await lend_in_turn(self._pool, self._watching, fitness.read_fitness)
            if (name := self._server_name) is not None:
                await lend_in_turn(self._pool, self._watching, partial(fitness.require_one_name, server_name=name))
        except StorageUnavailable:
            return False
        self._sets_isolation = found.isolation != "read committed"  # behind a pooler; otherwise the session sets it
        if found.synchronous_commit == "off":
            log.warning(
                "synchronous_commit is off for this role: a crash of PostgreSQL loses messages that were acknowledged"
            )
        return True

    async def open(self) -> None:
        """Create the pool, without connecting, and start the group commit. Raises ValueError for an invalid URL."""
        await self._pool.open()
        if self._workers_ended is None:
            await self._standbys.open()
            self._workers_ended = anyio.Event()
            self._tasks.start_soon(self._run_workers)

    async def aclose(self) -> None:
        self._committers.close()
        self._accesses.close()
        if self._workers_ended is not None:
            with anyio.move_on_after(FINISH_LIMIT_SECS, shield=True):
                await self._workers_ended.wait()
        self._workers.cancel()
        await self._standbys.aclose()
        await self._pool.aclose()

    def cut(self) -> None:
        self._workers.cancel()
        self._standbys.cut()
        self._pool.cut()

    # --- effects -----------------------------------------------------------------------------------

    async def perform(self, effect: StorageEffect[T]) -> T:
        if self._pool.silent:
            raise StorageUnavailable(str(CAUSES["timeout"]))
        performed = PERFORMERS.get(type(effect))
        if performed is None:
            raise TypeError(f"not a storage effect: {type(effect).__name__}")
        function, mode = performed
        if self._standbys and may_use_standby(effect):
            answered = await self._standbys.read(effect)
            if answered is not None:
                return answered.result
        match mode:
            case Mode.STORE:
                result = await function(self, effect)
            case Mode.WATCH:
                result = await lend_in_turn(self._pool, self._watching, lambda connection: function(connection, effect))
            case Mode.QUERY | Mode.CHANGE:
                alone = self._alone(lambda connection: function(connection, effect))
                result = await self._with_connection(alone, writes=mode is Mode.CHANGE, user_id=effect.in_turns_of)
            case Mode.GROUPED:
                result = await self._groups.find(function, effect, function, effect.in_turns_of)
            case Mode.LONG:
                result = await self._transact(function, effect, snapshot=False, limit_secs=LONG_SECS)
            case _:
                result = await self._transact(function, effect, snapshot=mode is Mode.SNAPSHOT)
        return cast("T", result)

    async def _transact(
        self,
        function: Callable[[Transaction, Any], Awaitable[Any]],
        effect: StorageEffect[Any],
        *,
        snapshot: bool,
        limit_secs: float | None = None,
    ) -> Any:
        result, ended = await self._with_connection(
            lambda connection: run_transaction(
                connection, function, effect, writer=self._writer, snapshot=snapshot, limit_secs=limit_secs
            ),
            writes=not snapshot,
            limit_secs=limit_secs,
            user_id=effect.in_turns_of,
        )
        for event in ended.events:
            self.handler.log_grew(event)
        for record in ended.records:
            self.handler.control_stored(record)
        return result

    @performs(AppendEvent, Mode.STORE)
    async def _append(self, effect: AppendEvent) -> Appended | Unchanged | AppendFailure:
        outcome = await self._committers.submit(effect)
        if effect.event_type == "message" and isinstance(outcome, Appended):
            self._indexer.log_grew(effect.channel_id)
        return outcome

    @performs(MirrorEvents, Mode.STORE)
    async def _mirror(self, effect: MirrorEvents) -> MirrorOutcome:
        posts = self._alone(lambda connection: self._mirror_posts.store(connection, effect))
        stored = await self._with_connection(posts, writes=True)
        outcome: MirrorOutcome = stored or await self._transact(mirror_events, effect, snapshot=False)
        if outcome.events and any(event.event_type == "message" for event in effect.events):
            self._indexer.log_grew(effect.log_id)
        return outcome

    @performs(JoinFromServer, Mode.STORE)
    async def _join(self, effect: JoinFromServer) -> RemoteJoin | LimitReached | None:
        joined, wanted = await self._transact(join_from_server, effect, snapshot=False)
        if wanted is None:
            return cast("RemoteJoin | LimitReached | None", joined)
        return shown_in(joined, await self._transact(read_snapshot, wanted, snapshot=True))

    @performs(ReadSnapshot, Mode.STORE)
    async def _read_snapshot(self, effect: ReadSnapshot) -> Snapshot | None:
        await self._transact(move_cursors, effect, snapshot=False)
        return cast("Snapshot | None", await self._transact(read_snapshot, effect, snapshot=True))

    @performs(SearchMessages, Mode.STORE)
    async def _search(self, effect: SearchMessages) -> tuple[SearchHit, ...] | SearchTooWide:
        def run() -> Awaitable[tuple[SearchHit, ...] | SearchTooWide]:
            return self._with_connection(lambda connection: search.search_messages(connection, effect))

        return await self._searching.run(effect.reader_id, run, self._pool.deadlines)

    @performs(IndexMessages, Mode.STORE)
    async def _index(self, effect: IndexMessages) -> bool:
        if effect.everywhere and not self._health.in_doubt:
            await self._with_connection(self._indexer.find_behind)
        if self._indexer.is_idle or self._health.in_doubt:  # leave it to requests and checks to notice failures
            return False
        return await self._with_connection(self._indexer.index)

    @performs(FindChannelAccess, Mode.STORE)
    async def _find_channel_access(self, effect: FindChannelAccess) -> ChannelAccess | None:
        if effect.page is None:
            return await self._accesses.submit(effect)
        return await self._pages.find(effect, effect.page)

    @performs(ReadHistory, Mode.STORE)
    async def _read_history(self, effect: ReadHistory) -> History | None:
        return await lend_in_turn(self._pool, self._watching, self._history.read)

    async def _with_connection(
        self,
        use: Callable[[Connection], Awaitable[T]],
        *,
        writes: bool = False,
        limit_secs: float | None = None,
        user_id: str = "",
    ) -> T:
        """Run `use` with a shared connection, in a slot of the user, "" for none. Raises Overloaded if none is free in time."""
        await self._shared.enter(user_id, self._pool.deadlines)
        try:
            return await self._pool.lend(use, writes=writes, limit_secs=limit_secs)
        finally:
            self._shared.leave(user_id)

    def _alone(self, use: Callable[[Connection], Awaitable[T]]) -> Callable[[Connection], Awaitable[T]]:
        """Wrap the use of a single statement, so that it runs with READ COMMITTED whatever the session's default is."""

        async def within(connection: Connection) -> T:
            if not self._sets_isolation:
                return await use(connection)
            async with connection.transaction(isolation="read_committed"):
                return await use(connection)

        return within

    async def _store(self, attempt: Attempt) -> Sequence[Outcome]:
        append = self._alone(
            lambda connection: append_batch(connection, attempt.appends, attempt.lock_timeout_ms, self._writer)
        )

        async def within(connection: Connection) -> Sequence[Outcome]:
            outcomes, grown = await append(connection)
            for event in grown:
                self.handler.log_grew(event)
            for outcome in reversed(outcomes):
                if isinstance(outcome, Appended) and not outcome.repeated:
                    self._history.stored(connection, outcome.event)  # one per transaction suffices
                    break
            return outcomes

        try:
            return await self._pool.lend(within, writes=True)
        except Locked:
            asked = self._alone(lambda connection: locked_authors(connection, attempt.appends))
            raise Locked(await self._pool.lend(asked, writes=True)) from None

    def _failed(self, writes: bool, cause: str) -> None:
        self._health.failed(cause)
        self.handler.storage_failed(writes, cause)

    def _refuse_waiting(self) -> None:
        """Fail the queued effects, because the database has stopped responding."""
        self._health.in_doubt = True
        self._committers.refuse_waiting()
        self._accesses.refuse_waiting()

    # --- batches -----------------------------------------------------------------------------------

    async def _run_workers(self) -> None:
        try:
            with self._workers:
                async with anyio.create_task_group() as workers:
                    for committer in self._committers.each:
                        workers.start_soon(committer.run)
                    for _ in range(ACCESS_READERS):
                        workers.start_soon(self._accesses.run)
        finally:
            if self._workers_ended is not None:
                self._workers_ended.set()

    def _committed(self, events: int, secs: float) -> None:
        self.handler.batch_committed(events, secs)

    async def _find_accesses(self, questions: Sequence[FindChannelAccess]) -> Sequence[ChannelAccess | None]:
        return await self._pool.lend(lambda using: access.find_channel_accesses(using, questions), writes=False)

    async def wall_ms(self) -> float | None:
        wall: float = await lend_in_turn(
            self._pool,
            self._watching,
            lambda connection: connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8 * 1000"),
        )
        return wall

    # --- health ------------------------------------------------------------------------------------

    async def check(self) -> StorageHealth:
        return await self._health.check()

    def stats(self) -> StorageStats:
        size, idle = self._pool.sizes
        return StorageStats(
            size, idle, len(self._committers), self._indexer.behind, self._shared.free, self._standbys.stats()
        )


PERFORMERS = collect(*MODULES, PostgresStorage)
"""The function and mode of each effect."""

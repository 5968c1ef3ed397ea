"""PostgreSQL, the log: every effect one transaction, appends by group commit, reconnecting by itself.

A connection that is lost is replaced at the next use. Posting, the questions that every post and every joining stream
asks, the control log and the health check have connections that nothing else may take. Failures of the driver become
`StorageUnavailable`; its texts stay in the log of this process, without parameters or credentials.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

import anyio
import asyncpg
import structlog
from anyio.abc import TaskGroup

from openguild_proto import effects
from openguild_proto.effects import (
    Appended,
    AppendEvent,
    FindChannelAccess,
    Overloaded,
    StorageEffect,
    StorageUnavailable,
)
from openguild_proto.fanout.history import History
from openguild_proto.records import ChannelAccess, ControlRecord
from openguild_runtime.storage import fitness
from openguild_runtime.storage.base import (
    ACCESS_READERS,
    COMMITTERS,
    WATCHERS,
    Storage,
    StorageHealth,
    StorageStats,
    Visible,
)
from openguild_runtime.storage.migrations import schema
from openguild_runtime.storage.migrations.schema import Schema
from openguild_runtime.storage.postgres import (
    access,
    accounts,
    attempts,
    channels,
    guilds,
    history,
    invites,
    retention,
    sessions,
)
from openguild_runtime.storage.postgres.committer import Committer
from openguild_runtime.storage.postgres.gather import Gather
from openguild_runtime.storage.postgres.settings import session_settings
from openguild_runtime.storage.postgres.transaction import CONTROL_COLUMNS, Transaction, control_record
from openguild_runtime.storage.postgres.values import Connection

__all__ = ["PostgresStorage"]

T = TypeVar("T")

CONNECT_LIMIT_SECS = 5.0
ACQUIRE_LIMIT_SECS = 5.0
FINISH_LIMIT_SECS = 5.0  # for the batches under way at the end
IDLE_LIFETIME_SECS = 300.0
MAX_BACKOFF_SECS = 2.0

# One statement, which is a transaction by itself: no BEGIN and COMMIT around it.
STATEMENTS: dict[type[StorageEffect[Any]], Callable[[Any, Any], Awaitable[Any]]] = {
    effects.InsertUser: accounts.insert_user,
    effects.FindUserByName: accounts.find_user_by_name,
    effects.FindRefreshFamily: sessions.find_refresh_family,
    effects.FindSession: sessions.find_session,
    effects.ListDevices: sessions.list_devices,
    effects.ListSessionAddresses: sessions.list_session_addresses,
    effects.ListGuilds: guilds.list_guilds,
    effects.FindGuildAccess: access.find_guild_access,
    effects.ListMembers: guilds.list_members,
    effects.FindMember: guilds.find_member,
    effects.ListInvites: invites.list_invites,
    effects.FindInvite: invites.find_invite,
    effects.ListChannels: channels.list_channels,
    effects.FindPosted: channels.find_posted,
    effects.ReadEvents: channels.read_events,
    effects.ListUnread: channels.list_unread,
    effects.CountAttempt: attempts.count_attempt,
}
# Several statements, perhaps with a control record.
TRANSACTIONS: dict[type[StorageEffect[Any]], Callable[[Transaction, Any], Awaitable[Any]]] = {
    effects.DescribeUser: accounts.describe_user,
    effects.GrantServerRole: accounts.grant_server_role,
    effects.RevokeServerRole: accounts.revoke_server_role,
    effects.OpenSession: sessions.open_session,
    effects.RotateRefresh: sessions.rotate_refresh,
    effects.RevokeRefresh: sessions.revoke_refresh,
    effects.RevokeDevice: sessions.revoke_device,
    effects.InsertGuild: guilds.insert_guild,
    effects.RenameGuild: guilds.rename_guild,
    effects.DeleteGuild: guilds.delete_guild,
    effects.SetMemberRole: guilds.set_member_role,
    effects.RemoveMember: guilds.remove_member,
    effects.GrantGuildRole: guilds.grant_guild_role,
    effects.InsertInvite: invites.insert_invite,
    effects.AcceptInvite: invites.accept_invite,
    effects.DeleteInvite: invites.delete_invite,
    effects.InsertChannel: channels.insert_channel,
    effects.RenameChannel: channels.rename_channel,
    effects.DeleteChannel: channels.delete_channel,
    effects.MarkRead: channels.mark_read,
    effects.GrantChannelRole: channels.grant_channel_role,
    effects.PruneExpired: retention.prune_expired,
}
SNAPSHOTS = frozenset({effects.DescribeUser})  # read several tables as of one moment

# The database is away, going away, overloaded, or has another schema: the effect may be tried again later.
UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,  # shutdown, crash, starting up, statement timeout
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.IdleInTransactionSessionTimeoutError,  # this process stood still in the middle
    asyncpg.TransactionRollbackError,  # deadlock, serialisation
    asyncpg.ReadOnlySQLTransactionError,  # a replica that is being promoted
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.PostgresSystemError,  # I/O errors of its host
)

log = structlog.get_logger("openguild.storage")


class PostgresStorage(Storage):
    """`database_url`: a libpq URL. `tasks` runs the group commit until `aclose`.

    `pool_size`: connections at most, of which some are reserved (below MIN_POOL_SIZE everything competes).
    `statement_cache_size` 0 is for PgBouncer in transaction mode: nothing is prepared and nothing set in a session;
    `statement_timeout_secs` is then kept on this side (and by `ALTER ROLE … SET statement_timeout` on the other).
    """

    def __init__(
        self,
        database_url: str,
        tasks: TaskGroup,
        *,
        pool_size: int = 10,
        statement_timeout_secs: float = 10.0,
        statement_cache_size: int = 100,
        committers: int = COMMITTERS,
    ) -> None:
        super().__init__()
        self._url = database_url
        self._tasks = tasks
        self._pool_size = pool_size
        self._timeout = statement_timeout_secs
        self._cache_size = statement_cache_size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._committer = Committer(self._borrow_alone, self._committed, count=committers)
        self._accesses = Gather(self._find_accesses)
        self._says_isolation = False  # each statement alone needs a transaction that names its isolation
        self._schema: Schema | None = None  # at the last look
        self._history = history.HistoryReader()
        self._workers = anyio.CancelScope()
        self._workers_ended: anyio.Event | None = None
        # Each worker uses one connection at a time: what is left is for everything else.
        reserved = committers + ACCESS_READERS + WATCHERS
        self._shared = anyio.Semaphore(max(1, pool_size - reserved), fast_acquire=True)
        self._watching = anyio.Semaphore(WATCHERS, fast_acquire=True)

    # --- start and stop ----------------------------------------------------------------------------

    async def start(self) -> None:
        await self.open()
        attempt, said, fit = 0, "", False
        while True:
            health = await self.check()
            fit = fit or (health.database and await self._is_fit())
            found = self._schema
            if health.database and health.migrations and fit:
                if found is not None and found.is_later:
                    log.warning("the schema is of a later release: this one serves with it", revision=found.revision)
                return
            outdated = health.database and not health.migrations
            missing = (
                (found.problem if found is not None else None) or schema.OUTDATED
                if outdated
                else "it cannot be reached"
            )
            if missing != said:
                log.warning(f"waiting for the database: {missing}")
            said = missing
            attempt += 1
            await anyio.sleep(random.uniform(0.1, min(MAX_BACKOFF_SECS, 0.2 * 2 ** min(attempt, 8))))  # noqa: S311 - jitter

    async def _is_fit(self) -> bool:
        """Whether the database could be asked. Raises DatabaseUnfit where this program can never work with it."""
        try:
            found = await self._in_turn(self._watching, fitness.look)
        except StorageUnavailable:
            return False
        self._says_isolation = found.isolation != "read committed"  # behind a pooler; else the session has ours
        if found.synchronous_commit == "off":
            log.warning(
                "synchronous_commit is off for this role: a crash of PostgreSQL loses messages that were acknowledged"
            )
        return True

    async def open(self) -> None:
        """Make the pool and start the group commit; nothing is connected yet. Raises ValueError for a bad URL."""
        if self._pool is None:
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=self._pool_size,
                timeout=CONNECT_LIMIT_SECS,
                command_timeout=self._timeout + 1,  # the server gives up first, and says so
                max_inactive_connection_lifetime=IDLE_LIFETIME_SECS,
                statement_cache_size=self._cache_size,
                reset=_keep_session,
                server_settings=session_settings(self._timeout, pooled=self._cache_size == 0),
            )
            self._tasks.start_soon(self._run_workers)

    async def aclose(self) -> None:
        self._committer.close()
        self._accesses.close()
        if self._workers_ended is not None:
            with anyio.move_on_after(FINISH_LIMIT_SECS, shield=True):
                await self._workers_ended.wait()
        self._workers.cancel()
        pool, self._pool = self._pool, None
        if pool is not None:
            with anyio.move_on_after(CONNECT_LIMIT_SECS, shield=True) as limit, suppress(*UNAVAILABLE):
                await pool.close()
            if limit.cancelled_caught:
                pool.terminate()

    # --- effects -----------------------------------------------------------------------------------

    async def perform(self, effect: StorageEffect[T]) -> T:
        if isinstance(effect, AppendEvent):
            outcome = await self._committer.submit(effect)
            if isinstance(outcome, Appended) and not outcome.repeated:
                self._history.stored(outcome.event)
            return cast("T", outcome)
        if isinstance(effect, FindChannelAccess):
            return cast("T", await self._accesses.submit(effect))
        kind = type(effect)
        if statement := STATEMENTS.get(kind):
            return cast("T", await self._with_connection(self._alone(lambda connection: statement(connection, effect))))
        transaction = TRANSACTIONS.get(kind)
        if transaction is None:
            raise TypeError(f"not a storage effect: {kind.__name__}")
        snapshot = kind in SNAPSHOTS

        async def run(connection: Connection) -> tuple[Any, list[ControlRecord]]:
            tx = Transaction(connection)
            async with connection.transaction(
                isolation="repeatable_read" if snapshot else "read_committed", readonly=snapshot
            ):
                result = await transaction(tx, effect)
            return result, tx.records

        result, records = await self._with_connection(run)
        for record in records:
            self.on_control(record)
        return cast("T", result)

    async def _with_connection(self, use: Callable[[Connection], Awaitable[T]]) -> T:
        """With one of the connections that are for everybody. Raises Overloaded where none comes free in time."""
        return await self._in_turn(self._shared, use)

    async def _in_turn(self, places: anyio.Semaphore, use: Callable[[Connection], Awaitable[T]]) -> T:
        with anyio.move_on_after(ACQUIRE_LIMIT_SECS) as waiting:
            await places.acquire()
        if waiting.cancelled_caught:
            raise Overloaded
        try:
            return await self._borrow(use)
        finally:
            places.release()

    def _alone(self, use: Callable[[Connection], Awaitable[T]]) -> Callable[[Connection], Awaitable[T]]:
        """`use` of one statement, which reads what was committed before it, whatever the default of its session."""

        async def within(connection: Connection) -> T:
            if not self._says_isolation:
                return await use(connection)
            async with connection.transaction(isolation="read_committed"):
                return await use(connection)

        return within

    async def _borrow_alone(self, use: Callable[[Connection], Awaitable[T]]) -> T:
        return await self._borrow(self._alone(use))

    async def _borrow(self, use: Callable[[Connection], Awaitable[T]]) -> T:
        """With a connection of the pool, which never has to be waited for: whoever comes here has a place in it."""
        if self._pool is None:
            raise StorageUnavailable
        try:
            async with self._pool.acquire(timeout=ACQUIRE_LIMIT_SECS) as connection:
                try:
                    return await use(connection)
                except (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError):
                    return await use(
                        connection
                    )  # a migration changed what was prepared; its transaction was rolled back
        except UNAVAILABLE as failure:
            if isinstance(failure, asyncpg.ProtocolViolationError) and self._cache_size > 0:
                log.warning("a pooler refuses our session: set database.statement_cache_size to 0 to go through one")
            log.debug("the database cannot be used", kind=type(failure).__name__)
            raise StorageUnavailable from failure

    # --- in batches --------------------------------------------------------------------------------

    async def _run_workers(self) -> None:
        self._workers_ended = anyio.Event()
        try:
            with self._workers:
                async with anyio.create_task_group() as workers:
                    for queue in self._committer.queues:
                        workers.start_soon(queue.run)
                    for _ in range(ACCESS_READERS):
                        workers.start_soon(self._accesses.run)
        finally:
            self._workers_ended.set()

    def _committed(self, events: int, secs: float) -> None:
        self.on_batch(events, secs)

    async def _find_accesses(self, questions: Sequence[FindChannelAccess]) -> Sequence[ChannelAccess | None]:
        return await self._borrow(lambda connection: access.find_channel_accesses(connection, questions))

    # --- other reads -------------------------------------------------------------------------------

    async def heads(self, channel_ids: Sequence[str]) -> dict[str, int]:
        rows = await self._with_connection(
            lambda connection: connection.fetch(
                "SELECT channel_id, head_sequence FROM channels WHERE channel_id = ANY ($1::uuid[])", list(channel_ids)
            )
        )
        return {str(row["channel_id"]): row["head_sequence"] for row in rows}

    async def control_head(self) -> int:
        head = await self._in_turn(
            self._watching, lambda connection: connection.fetchval("SELECT sequence FROM control_head")
        )
        return int(head)

    async def control_since(self, sequence: int, limit: int) -> list[ControlRecord]:
        rows = await self._in_turn(
            self._watching,
            lambda connection: connection.fetch(
                f"SELECT {CONTROL_COLUMNS} FROM control_log WHERE sequence > $1 ORDER BY sequence LIMIT $2",
                sequence,
                limit,
            ),
        )
        return [control_record(row) for row in rows]

    async def history(self) -> History | None:
        return await self._in_turn(self._watching, self._history.read)

    async def record_lineage(self, found: History) -> None:
        await self._in_turn(self._watching, lambda connection: history.record_lineage(connection, found))

    async def renew_epochs(self, found: History, at_least: int) -> bool:
        return await self._in_turn(self._watching, lambda connection: history.renew_epochs(connection, found, at_least))

    async def visible(self, user_id: str) -> Visible:
        return await self._with_connection(lambda connection: guilds.visible(connection, user_id))

    # --- health ------------------------------------------------------------------------------------

    async def check(self) -> StorageHealth:
        try:
            self._schema = await self._in_turn(self._watching, schema.read)
        except StorageUnavailable:
            return StorageHealth(database=False, migrations=False)
        return StorageHealth(database=True, migrations=self._schema.serves)

    def stats(self) -> StorageStats:
        pool = self._pool
        return StorageStats(
            pool_size=pool.get_size() if pool is not None else 0,
            pool_idle=pool.get_idle_size() if pool is not None else 0,
            queue_events=len(self._committer),
        )


async def _keep_session(connection: Connection) -> None:
    """No effect leaves anything behind in its session, so a connection goes back without the round trip of RESET ALL."""

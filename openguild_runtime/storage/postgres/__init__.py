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
import structlog
from anyio.abc import TaskGroup

from openguild_proto import effects
from openguild_proto.effects import AppendEvent, FindChannelAccess, Overloaded, StorageEffect, StorageUnavailable
from openguild_proto.records import ChannelAccess, ControlRecord
from openguild_runtime.storage import migrations
from openguild_runtime.storage.base import (
    ACCESS_READERS,
    COMMITTERS,
    WATCHERS,
    Storage,
    StorageHealth,
    StorageStats,
    Visible,
)
from openguild_runtime.storage.causes import CAUSES, PASSING, REFUSALS
from openguild_runtime.storage.postgres import accounts, attempts, channels, guilds, invites, retention, sessions
from openguild_runtime.storage.postgres.committer import Committer
from openguild_runtime.storage.postgres.gather import Gather
from openguild_runtime.storage.postgres.pool import Patience, Pool
from openguild_runtime.storage.postgres.proof import check_writable, prove_usable
from openguild_runtime.storage.postgres.transaction import CONTROL_COLUMNS, Transaction, control_record
from openguild_runtime.storage.postgres.values import Connection, texts

__all__ = ["PostgresStorage"]

T = TypeVar("T")

PLACE_LIMIT_SECS = 5.0  # for a connection that others use: half of what a request has, and then it is `overloaded`
FINISH_LIMIT_SECS = 1.0  # for the batches under way at the end
MAX_BACKOFF_SECS = 2.0

# One statement, which is a transaction by itself: no BEGIN and COMMIT around it.
QUESTIONS: dict[type[StorageEffect[Any]], Callable[[Any, Any], Awaitable[Any]]] = {
    effects.FindUserByName: accounts.find_user_by_name,
    effects.FindRefreshFamily: sessions.find_refresh_family,
    effects.FindSession: sessions.find_session,
    effects.ListDevices: sessions.list_devices,
    effects.ListSessionAddresses: sessions.list_session_addresses,
    effects.ListGuilds: guilds.list_guilds,
    effects.FindGuildAccess: guilds.find_guild_access,
    effects.ListMembers: guilds.list_members,
    effects.FindMember: guilds.find_member,
    effects.ListInvites: invites.list_invites,
    effects.FindInvite: invites.find_invite,
    effects.ListChannels: channels.list_channels,
    effects.FindPosted: channels.find_posted,
    effects.ReadEvents: channels.read_events,
    effects.ListUnread: channels.list_unread,
}
CHANGES: dict[type[StorageEffect[Any]], Callable[[Any, Any], Awaitable[Any]]] = {
    effects.InsertUser: accounts.insert_user,
    effects.RenameGuild: guilds.rename_guild,
    effects.DeleteInvite: invites.delete_invite,
    effects.RenameChannel: channels.rename_channel,
    effects.MarkRead: channels.mark_read,
    effects.CountAttempt: attempts.count_attempt,
}
STATEMENTS = QUESTIONS | CHANGES
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
    effects.DeleteGuild: guilds.delete_guild,
    effects.SetMemberRole: guilds.set_member_role,
    effects.RemoveMember: guilds.remove_member,
    effects.GrantGuildRole: guilds.grant_guild_role,
    effects.InsertInvite: invites.insert_invite,
    effects.AcceptInvite: invites.accept_invite,
    effects.InsertChannel: channels.insert_channel,
    effects.DeleteChannel: channels.delete_channel,
    effects.GrantChannelRole: channels.grant_channel_role,
    effects.PruneExpired: retention.prune_expired,
}
SNAPSHOTS = frozenset({effects.DescribeUser})  # read several tables as of one moment

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
        self._tasks = tasks
        self._timeout = statement_timeout_secs
        self._cache_size = statement_cache_size
        self._pool = Pool(
            database_url,
            tasks,
            size=pool_size,
            limit_secs=statement_timeout_secs + 1,  # the server gives up first, and says so
            cache_size=statement_cache_size,
            settings=self._settings(),
            on_fault=self._failed,
            on_silence=self._refuse_waiting,
        )
        self._doubtful = True  # something failed since everything was last seen to work
        self._writable = True
        self._committer = Committer(self._lend_to_write, self._committed, count=committers)
        self._accesses = Gather(self._find_accesses)
        self._workers = anyio.CancelScope()
        self._workers_ended: anyio.Event | None = None
        # Each worker uses one connection at a time: what is left is for everything else.
        reserved = committers + ACCESS_READERS + WATCHERS
        self._shared = anyio.Semaphore(max(1, pool_size - reserved), fast_acquire=True)
        self._watching = anyio.Semaphore(WATCHERS, fast_acquire=True)

    # --- start and stop ----------------------------------------------------------------------------

    async def start(self) -> None:
        await self.open()
        attempt = 0
        told: str | None = None
        while True:
            health = await self.check()
            if health.usable:
                return
            if health.cause != told:
                told = health.cause
                log.warning(f"waiting for the database: {health.why}", cause=told)
            attempt += 1
            await anyio.sleep(random.uniform(0.1, min(MAX_BACKOFF_SECS, 0.2 * 2 ** min(attempt, 8))))  # noqa: S311 - jitter

    async def open(self) -> None:
        """Make the pool and start the group commit; nothing is connected yet. Raises ValueError for a bad URL."""
        await self._pool.open()
        if self._workers_ended is None:
            self._workers_ended = anyio.Event()
            self._tasks.start_soon(self._run_workers)

    def _settings(self) -> dict[str, str]:
        """Of each session. A pooler shares sessions and refuses what is none of its business to set."""
        if self._cache_size == 0:
            return {"application_name": "openguild"}
        return {
            "application_name": "openguild",
            "statement_timeout": str(int(self._timeout * 1000)),
            # A process that stands still within a transaction holds its locks no longer than a statement may take.
            "idle_in_transaction_session_timeout": str(int(self._timeout * 1000)),
            "jit": "off",  # short queries: compiling costs more than it saves
        }

    async def aclose(self) -> None:
        self._committer.close()
        self._accesses.close()
        if self._workers_ended is not None:
            with anyio.move_on_after(FINISH_LIMIT_SECS, shield=True):
                await self._workers_ended.wait()
        self._workers.cancel()
        await self._pool.aclose()

    # --- effects -----------------------------------------------------------------------------------

    async def perform(self, effect: StorageEffect[T]) -> T:
        if self._pool.silent:
            raise StorageUnavailable(str(CAUSES["timeout"]))
        if isinstance(effect, AppendEvent):
            return cast("T", await self._committer.submit(effect))
        if isinstance(effect, FindChannelAccess):
            return cast("T", await self._accesses.submit(effect))
        kind = type(effect)
        if statement := STATEMENTS.get(kind):
            writes = kind in CHANGES
            return cast(
                "T", await self._with_connection(lambda connection: statement(connection, effect), writes=writes)
            )
        transaction = TRANSACTIONS.get(kind)
        if transaction is None:
            raise TypeError(f"not a storage effect: {kind.__name__}")
        snapshot = kind in SNAPSHOTS

        async def run(connection: Connection) -> tuple[Any, list[ControlRecord]]:
            tx = Transaction(connection)
            async with connection.transaction(isolation="repeatable_read" if snapshot else None, readonly=snapshot):
                result = await transaction(tx, effect)
            return result, tx.records

        result, records = await self._with_connection(run, writes=not snapshot)
        for record in records:
            self.on_control(record)
        return cast("T", result)

    async def _with_connection(self, use: Callable[[Connection], Awaitable[T]], *, writes: bool = False) -> T:
        """With one of the connections that are for everybody. Raises Overloaded where none comes free in time."""
        return await self._in_turn(self._shared, use, writes=writes)

    async def _in_turn(
        self, places: anyio.Semaphore, use: Callable[[Connection], Awaitable[T]], *, writes: bool = False
    ) -> T:
        """A connection never has to be waited for: whoever has a place has one."""
        with anyio.move_on_after(PLACE_LIMIT_SECS) as waiting:
            await places.acquire()
        if waiting.cancelled_caught:
            raise Overloaded
        try:
            return await self._pool.lend(use, writes=writes)
        finally:
            places.release()

    async def _lend_to_write(self, use: Callable[[Connection], Awaitable[T]]) -> T:
        return await self._pool.lend(use, writes=True)

    def _failed(self, writes: bool, cause: str) -> None:
        if cause not in PASSING:
            self._doubtful = True
        self.on_fault(writes, cause)

    def _refuse_waiting(self) -> None:
        """The database has fallen silent: whoever waits in a queue is told so, and nobody comes into one."""
        self._doubtful = True
        self._committer.refuse_waiting()
        self._accesses.refuse_waiting()

    # --- in batches --------------------------------------------------------------------------------

    async def _run_workers(self) -> None:
        try:
            with self._workers:
                async with anyio.create_task_group() as workers:
                    for queue in self._committer.queues:
                        workers.start_soon(queue.run)
                    for _ in range(ACCESS_READERS):
                        workers.start_soon(self._accesses.run)
        finally:
            if self._workers_ended is not None:
                self._workers_ended.set()

    def _committed(self, events: int, secs: float) -> None:
        self.on_batch(events, secs)

    async def _find_accesses(self, questions: Sequence[FindChannelAccess]) -> Sequence[ChannelAccess | None]:
        return await self._pool.lend(
            lambda connection: channels.find_channel_accesses(connection, questions), writes=False
        )

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

    async def visible(self, user_id: str) -> Visible:
        row = await self._with_connection(
            lambda connection: connection.fetchrow(
                """
                WITH mine AS (SELECT guild_id FROM guild_memberships WHERE user_id = $1)
                SELECT ARRAY(SELECT guild_id FROM mine ORDER BY guild_id) AS guilds, ARRAY(
                    SELECT channel_id FROM channels WHERE guild_id IN (SELECT guild_id FROM mine)
                    OR channel_id IN (SELECT channel_id FROM channel_memberships WHERE user_id = $1)
                    ORDER BY created_at, channel_id
                ) AS channels
                """,
                user_id,
            )
        )
        if row is None:
            raise StorageUnavailable
        return Visible(guild_ids=texts(row["guilds"]), channel_ids=texts(row["channels"]))

    # --- health ------------------------------------------------------------------------------------

    async def check(self) -> StorageHealth:
        """A question in a session of the pool. At the start, and after a failure, everything in a new session."""
        migrations.expected()  # to read the steps takes a while, once: not within the time of an answer
        try:
            if not self._doubtful:
                with suppress(StorageUnavailable):  # it says too little: the proof finds out more
                    return self._found(await self._pool.ask(self._look))
            self._doubtful = False  # what fails from here on is a new doubt
            current = await self._pool.ask(self._prove)
        except Exception as failure:
            self._doubtful = True
            cause = self._pool.cause_of(failure)
            if cause is None:
                raise
            return self._found(False, cause)
        if not self._writable:
            self._writable = True
            await self._pool.renew()  # sessions of the time when nothing could be written
        return self._found(current)

    def _found(self, current: bool, cause: str | None = None) -> StorageHealth:
        if cause is None or cause in PASSING:
            return StorageHealth(
                database=True, migrations=current, writable=self._writable, cause=None if current else "migrations"
            )
        self._writable = False
        if cause in REFUSALS:
            return StorageHealth(database=True, migrations=True, writable=False, cause=cause)
        return StorageHealth(database=False, migrations=False, writable=False, cause=cause)

    async def _look(self, patience: Patience) -> bool:
        async def look(connection: Connection) -> str | None:
            await check_writable(connection)
            patience.renew()
            return await migrations.current(connection)

        return migrations.serves(await self._in_turn(self._watching, look))

    async def _prove(self, patience: Patience) -> bool:
        del patience  # connecting and writing, all in the time of one answer
        return await self._pool.connected(prove_usable)

    def stats(self) -> StorageStats:
        size, idle = self._pool.sizes
        return StorageStats(pool_size=size, pool_idle=idle, queue_events=len(self._committer))

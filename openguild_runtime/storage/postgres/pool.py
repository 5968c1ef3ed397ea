"""Lends connections to PostgreSQL, each for a bounded time, and notices when nothing is answered any more.

A connection whose user failed, or was given up, is put away by a task of its own: nobody waits for that. What a session
has learned that is not true any more (it is read-only, its server is gone) leaves the pool with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import asyncpg
from anyio.abc import TaskGroup

from openguild_proto.effects import StorageUnavailable
from openguild_proto.policy.silence import SilenceDetector
from openguild_runtime.observability.database_causes import CAUSES
from openguild_runtime.storage.postgres.faults import FaultLog, cause_of
from openguild_runtime.storage.postgres.values import Connection

T = TypeVar("T")

CANCEL_SECS = 1.0  # for a statement that was given up to be cancelled; then its session is ended
IDLE_LIFETIME_SECS = 300.0
SILENT_AFTER_SECS = 3.0  # a database that answers nothing for so long is silent: far more than a loaded one takes
TICKS = 10  # of a probe timer: time in which this process itself stood still is at most one
CLOSE_SECS = 0.5  # for sessions to end in good order
RENEW_SECS = 5.0  # between two renewals of all sessions by failures: a standby is not connected to for each request
# The session will not get better, whatever its next user asks of it.
SPENT = frozenset({"read_only", "shutdown", "lost", "starting", "damaged"})


class ProbeTimer:
    """Cancels `scope` after SILENT_AFTER_SECS without an answer, unless this process stood still meanwhile."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        self._scope = scope
        self._left = TICKS
        self._timer = asyncio.get_running_loop().call_later(SILENT_AFTER_SECS / TICKS, self._tick)

    def restart(self) -> None:
        """A part of the question was answered."""
        self._left = TICKS

    def cancel(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _tick(self) -> None:
        self._left -= 1
        if self._left:
            self._timer = asyncio.get_running_loop().call_later(SILENT_AFTER_SECS / TICKS, self._tick)
        else:
            self._scope.cancel()


class Pool:
    """`on_fault(writes, cause)`: for each use that failed. `on_silence()`: the database has stopped answering.

    Every use ends after `limit_secs`, or sooner where its caller is cancelled.
    """

    def __init__(
        self,
        url: str,
        tasks: TaskGroup,
        *,
        size: int,
        limit_secs: float,
        cache_size: int,
        settings: dict[str, str],
        on_fault: Callable[[bool, str], None],
        on_silence: Callable[[], None],
    ) -> None:
        self._url = url
        self._tasks = tasks
        self._size = size
        self._limit_secs = limit_secs
        self._cache_size = cache_size
        self._session: dict[str, Any] = {
            "timeout": limit_secs,
            "command_timeout": limit_secs,  # the server gives up first, and says so
            "statement_cache_size": cache_size,
            "server_settings": settings,
        }
        self._faults = FaultLog(on_fault)
        self._on_silence = on_silence
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._sessions: asyncpg.Pool[asyncpg.Record] | None = None  # the same pool, even after `aclose` has begun
        self._lent: set[anyio.CancelScope] = set()
        self._silence = SilenceDetector(SILENT_AFTER_SECS)
        self._renewed_at = float("-inf")

    async def open(self) -> None:
        """Nothing is connected yet. Raises ValueError for a bad URL."""
        if self._pool is None:
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=self._size,
                max_inactive_connection_lifetime=IDLE_LIFETIME_SECS,
                reset=_keep_session,
                **self._session,
            )
            self._sessions = self._pool

    async def aclose(self) -> None:
        """End every session, within a bound."""
        pool, self._pool = self._pool, None
        if pool is not None:
            with anyio.move_on_after(CLOSE_SECS, shield=True) as limit, suppress(Exception):
                await pool.close()
            if limit.cancelled_caught:
                pool.terminate()

    def cut(self) -> None:
        """End every session now, even while `aclose` waits for them."""
        if self._sessions is not None:
            self._sessions.terminate()

    @property
    def silent(self) -> bool:
        """The database answers nothing: what is asked fails at once, until `ask` has an answer."""
        return self._silence.silent

    @property
    def sizes(self) -> tuple[int, int]:
        """Connections open, and of these the unused ones."""
        return (self._pool.get_size(), self._pool.get_idle_size()) if self._pool is not None else (0, 0)

    # --- lending -----------------------------------------------------------------------------------

    async def lend(self, use: Callable[[Connection], Awaitable[T]], *, writes: bool) -> T:
        """`use(connection)`. Raises StorageUnavailable, its kinds Overloaded and Locked, and what is the effect's own fault."""
        if self._silence.silent:
            raise StorageUnavailable(str(CAUSES["timeout"]))
        with anyio.CancelScope(deadline=anyio.current_time() + self._limit_secs) as scope:
            self._lent.add(scope)
            try:
                return await self._borrowed(use)
            except Exception as failure:
                cause = self.cause_of(failure)
                if cause is None:
                    raise
                if cause == "read_only" and time.monotonic() - self._renewed_at >= RENEW_SECS:
                    await self.renew()
                raise self._faults.note(cause, failure, writes=writes) from failure
            except BaseException:  # the caller's own time is over, which is the database's doing
                if self._pool is not None and not scope.cancel_called:
                    self._faults.note("timeout", None, writes=writes)
                raise
            finally:
                self._lent.discard(scope)
        raise self._faults.note("timeout", None, writes=writes)

    async def _borrowed(self, use: Callable[[Connection], Awaitable[T]]) -> T:
        pool = self._pool
        if pool is None:
            raise StorageUnavailable
        connection = await pool.acquire()
        try:
            try:
                result = await use(connection)
            except (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError):
                result = await use(connection)  # a migration changed what was prepared; its transaction was rolled back
        except BaseException as failure:
            cause = self.cause_of(failure) if isinstance(failure, Exception) else None
            if isinstance(failure, asyncpg.PostgresError) and cause != "lost":
                self._silence.heard(time.monotonic())
            self._tasks.start_soon(_put_away, pool, connection, cause in SPENT)
            raise
        self._silence.heard(time.monotonic())
        await pool.release(connection)
        return result

    def cause_of(self, failure: BaseException) -> str | None:
        """As `faults.cause_of`, knowing whether we go through a pooler."""
        cause = cause_of(failure)
        return "lost" if cause == "pooler" and self._cache_size == 0 else cause

    # --- silence -----------------------------------------------------------------------------------

    async def ask(self, question: Callable[[ProbeTimer], Awaitable[T]]) -> T:
        """A probe: `question(timer)`, given up when it and everything else got no answer in time. Raises TimeoutError."""
        asked_at = time.monotonic()
        with anyio.CancelScope() as scope:
            timer = ProbeTimer(scope)
            try:
                return await question(timer)
            finally:
                timer.cancel()
        if self._silence.unanswered(asked_at, time.monotonic()):
            await self._fall_silent()
        raise TimeoutError

    async def connected(self, use: Callable[[Connection], Awaitable[T]]) -> T:
        """`use(connection)` in a session of its own. Raises what it raises, and what connecting does."""
        try:
            connection = await asyncpg.connect(self._url, **self._session)
            try:
                result = await use(connection)
                self._silence.heard(time.monotonic())
                await connection.close(timeout=CANCEL_SECS)
            finally:
                connection.terminate()  # nothing, where it is closed
        except asyncpg.PostgresError as failure:
            if self.cause_of(failure) != "lost":
                self._silence.heard(time.monotonic())
            raise
        return result

    async def _fall_silent(self) -> None:
        """Whoever waits is told now. Sessions are given up: the server that they know may never answer again."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        for scope in list(self._lent):
            scope.cancel()
        pool.terminate()
        await self.open()
        self._on_silence()

    async def renew(self) -> None:
        """Each session is replaced when it is used next: it may be one of a server that is the primary no more."""
        self._renewed_at = time.monotonic()
        if self._pool is not None:
            await self._pool.expire_connections()


async def _put_away(pool: asyncpg.Pool[asyncpg.Record], connection: Any, spent: bool) -> None:
    """A spent one is ended; of another one the statement under way is cancelled and its transaction rolled back."""
    with anyio.CancelScope(shield=True), suppress(Exception):
        if spent:
            connection.terminate()
        await pool.release(connection, timeout=CANCEL_SECS)


async def _keep_session(connection: Connection) -> None:
    """No effect leaves anything behind in its session, so a connection goes back without the round trip of RESET ALL."""

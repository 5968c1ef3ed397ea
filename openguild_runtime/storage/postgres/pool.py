"""Lends connections to PostgreSQL, each for a limited time, and detects when the database stops responding.

After a failure or a timeout, a separate task returns the connection, so that the caller does not wait. Sessions that cannot
recover, because they are read-only or their server is gone, are closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import asyncpg
import structlog
from anyio.abc import TaskGroup

from openguild_proto.effects import StorageUnavailable
from openguild_proto.policy.silence_detector import SilenceDetector
from openguild_runtime.observability.database_causes import CAUSES
from openguild_runtime.storage.postgres.faults import FaultLog, cause_of, is_answer
from openguild_runtime.storage.postgres.kept_sessions import KeptSessions, Session
from openguild_runtime.storage.postgres.primary_connector import FAILURES, PrimaryConnector
from openguild_runtime.storage.postgres.values import Connection
from openguild_runtime.system.deadlines import Deadline, Deadlines

T = TypeVar("T")

CANCEL_SECS = 1.0  # to cancel a statement that timed out; then its session is closed
IDLE_LIFETIME_SECS = 300.0
SILENT_AFTER_SECS = 3.0  # without any response: far longer than a loaded database takes
TICKS = 10  # of a probe timer; a stall of this process counts as one
CLOSE_SECS = 0.5  # for an orderly close of the sessions
LOOK_SECS = 5.0  # between two checks of the other hosts of the URL
RENEW_SECS = 5.0  # between two renewals of all sessions after failures, to limit reconnects to a standby
log = structlog.get_logger("openguild.storage")

# Failures after which a transaction is retried: a migration has invalidated prepared statements, or it conflicted with another.
AGAIN = (
    asyncpg.InvalidCachedStatementError,
    asyncpg.OutdatedSchemaCacheError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)
# Pauses before each retry, so that the other transaction finishes first.
AGAIN_SECS = (0.02, 0.2)
# Causes after which a session cannot be used again.
UNRECOVERABLE = frozenset({"read_only", "shutdown", "lost", "starting", "damaged"})


class ProbeTimer:
    """Cancels `scope` after SILENT_AFTER_SECS, unless restarted. A stall of this process does not count."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        self._scope = scope
        self._left = TICKS
        self._timer = asyncio.get_running_loop().call_later(SILENT_AFTER_SECS / TICKS, self._tick)

    def restart(self) -> None:
        """Start again, after a part of the probe succeeded."""
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
    """A pool of connections. `title` is the database's name in the log.

    `on_fault(writes, cause)` is called for each failed use, `on_silence()` when the database stops responding. Every use ends
    after `limit_secs` or when its caller is cancelled. The server's own timeout is shorter, so that it gives a reason.
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
        on_fault: Callable[[bool, str], None] = lambda writes, cause: None,
        on_silence: Callable[[], None] = lambda: None,
        title: str = "the database",
    ) -> None:
        self._url = url
        self._primary = PrimaryConnector(url)
        self._looked_at = time.monotonic()
        self._tasks = tasks
        self._size = size
        self._limit_secs = limit_secs
        self._cache_size = cache_size
        self._session: dict[str, Any] = {
            "timeout": limit_secs,
            "statement_cache_size": cache_size,
            "server_settings": settings,
        }
        self._faults = FaultLog(on_fault, title=title)
        self._on_silence = on_silence
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._sessions: asyncpg.Pool[asyncpg.Record] | None = None  # the same pool, also during `aclose`
        self._kept: KeptSessions | None = None  # the idle sessions of `_pool`
        self._lent: set[Deadline] = set()
        self.deadlines = Deadlines()
        self._silence = SilenceDetector(SILENT_AFTER_SECS)
        self._renewed_at = float("-inf")

    async def open(self) -> None:
        """Create the pool without connecting. Raises ValueError for an invalid URL."""
        if self._pool is None:
            chosen: dict[str, Any] = {"connect": self._primary.connect}
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=self._size,
                max_inactive_connection_lifetime=IDLE_LIFETIME_SECS,
                reset=_keep_session,
                **self._session,
                **chosen,
            )
            self._sessions = self._pool
            self._kept = KeptSessions(self._pool, self._give_back)

    async def aclose(self) -> None:
        """Close all sessions, within a time limit."""
        pool, self._pool = self._pool, None
        if pool is not None:
            self._keep_no_more()
            with anyio.move_on_after(CLOSE_SECS, shield=True) as limit, suppress(Exception):
                await pool.close()
            if limit.cancelled_caught:
                pool.terminate()

    def cut(self) -> None:
        """Close all sessions now, even while `aclose` waits for them."""
        if self._sessions is not None:
            self._sessions.terminate()

    @property
    def silent(self) -> bool:
        """Whether the database does not respond. Effects then fail at once, until `probe` succeeds."""
        return self._silence.silent

    @property
    def sizes(self) -> tuple[int, int]:
        """The number of open connections, and of idle ones among them."""
        if self._pool is None or self._kept is None:
            return 0, 0
        return self._pool.get_size(), self._pool.get_idle_size() + len(self._kept)

    # --- lending -----------------------------------------------------------------------------------

    async def lend(
        self, use: Callable[[Connection], Awaitable[T]], *, writes: bool, limit_secs: float | None = None
    ) -> T:
        """Run `use(connection)` for at most `limit_secs`, by default the time limit of one statement.

        Raises StorageUnavailable, its subclasses Overloaded and Locked, and errors of the statement itself.
        """
        if self._silence.silent:
            raise StorageUnavailable(str(CAUSES["timeout"]))
        with self.deadlines.after(limit_secs or self._limit_secs) as limit:
            self._lent.add(limit)
            try:
                return await self._borrowed(use)
            except Exception as failure:
                cause = self.cause_of(failure)
                if cause is None:
                    raise
                if cause == "read_only" and time.monotonic() - self._renewed_at >= RENEW_SECS:
                    await self.renew()
                raise self._faults.note(cause, failure, writes=writes) from failure
            except BaseException:  # the caller timed out, because of the database
                if self._pool is not None and not limit.passed:
                    self._faults.note("timeout", None, writes=writes)
                raise
            finally:
                self._lent.discard(limit)
        raise self._faults.note("timeout", None, writes=writes)

    async def lend_kept(self, use: Callable[[Connection], Awaitable[None]]) -> None:
        """Run `use` as a write if there is an idle session; opens none. Raises the same as `lend`."""
        if self._kept:
            await self.lend(use, writes=True)

    async def _borrowed(self, use: Callable[[Connection], Awaitable[T]]) -> T:
        pool, kept = self._pool, self._kept
        if pool is None or kept is None:
            raise StorageUnavailable
        connection = kept.take()
        if connection is None:
            connection = await pool.acquire()
        try:
            result = await self._run(use, connection)
        except BaseException as failure:
            cause = self.cause_of(failure) if isinstance(failure, Exception) else None
            if is_answer(failure) and cause != "lost":
                self._silence.response_received(time.monotonic())
            self._tasks.start_soon(_return, pool, connection, cause in UNRECOVERABLE)
            raise
        self._silence.response_received(time.monotonic())
        kept.put(connection)
        return result

    async def _run(self, use: Callable[[Connection], Awaitable[T]], connection: Connection) -> T:
        for pause in AGAIN_SECS:
            try:
                return await use(connection)
            except AGAIN as failure:  # the transaction was rolled back
                log.info("a transaction is run again", kind=type(failure).__name__)
                await asyncio.sleep(pause)
        return await use(connection)

    def _give_back(self, pool: asyncpg.Pool[asyncpg.Record], session: Session) -> None:
        self._tasks.start_soon(_return, pool, session, False)

    def _keep_no_more(self) -> None:
        """Return the kept sessions to their pool; sessions in use follow when they are put back."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def cause_of(self, failure: BaseException) -> str | None:
        """Return `faults.cause_of`, corrected for a configured pooler."""
        cause = cause_of(failure)
        return "lost" if cause == "pooler" and self._cache_size == 0 else cause

    # --- silence -----------------------------------------------------------------------------------

    async def probe(self, check: Callable[[ProbeTimer], Awaitable[T]]) -> T:
        """Run `check(timer)`. Raises TimeoutError if it takes too long; without any other response, the database is silent then."""
        asked_at = time.monotonic()
        with anyio.CancelScope() as scope:
            timer = ProbeTimer(scope)
            try:
                return await check(timer)
            finally:
                timer.cancel()
        if self._silence.unanswered(asked_at, time.monotonic()):
            await self._fall_silent()
        raise TimeoutError

    async def connected(self, use: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `use(connection)` in a new session. Exceptions of `use` and of connecting are raised unchanged."""
        try:
            connection = await self._primary.connect(command_timeout=self._limit_secs, **self._session)
            try:
                result = await use(connection)
                self._silence.response_received(time.monotonic())
                await connection.close(timeout=CANCEL_SECS)
            finally:
                connection.terminate()  # no effect if it is closed
        except Exception as failure:
            if is_answer(failure) and self.cause_of(failure) != "lost":
                self._silence.response_received(time.monotonic())
            raise
        return result

    async def _fall_silent(self) -> None:
        """Fail all uses and drop all sessions, because their server may never respond again."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        for limit in list(self._lent):
            limit.cancel()
        self._keep_no_more()
        pool.terminate()
        await self.open()
        self._on_silence()

    def follow_primary(self) -> None:
        """Check, at most every LOOK_SECS, whether another host of the URL has become the primary, and replace all sessions then."""
        now = time.monotonic()
        if self._primary.has_several and now - self._looked_at >= LOOK_SECS:
            self._looked_at = now
            self._tasks.start_soon(self._look)

    async def _look(self) -> None:
        with suppress(*FAILURES):  # callers that need a session will see it
            if await self._primary.find_primary(self._session):
                await self.renew()

    async def renew(self) -> None:
        """Replace each session at its next use, because its server may no longer be the primary."""
        self._renewed_at = time.monotonic()
        if self._pool is not None:
            self._keep_no_more()
            self._kept = KeptSessions(self._pool, self._give_back)
            await self._pool.expire_connections()


async def _return(pool: asyncpg.Pool[asyncpg.Record], connection: Any, unrecoverable: bool) -> None:
    """Return a connection after a failure: cancel its statement and roll back, or close it if it is unrecoverable."""
    with anyio.CancelScope(shield=True), suppress(Exception):
        if unrecoverable:
            connection.terminate()
        await pool.release(connection, timeout=CANCEL_SECS)


async def _keep_session(connection: Connection) -> None:
    """Skip asyncpg's reset of a session, because effects change no session state."""

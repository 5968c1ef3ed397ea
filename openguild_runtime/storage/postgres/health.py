"""Checks whether the database can be used: with a query, or with test writes at the start and after a failure."""

from __future__ import annotations

from contextlib import suppress

import anyio

from openguild_proto.effects import Overloaded, StorageUnavailable
from openguild_proto.effects.process import StorageHealth
from openguild_runtime.observability.database_causes import PASSING, REFUSALS
from openguild_runtime.storage.migrations import schema
from openguild_runtime.storage.migrations.schema import Schema
from openguild_runtime.storage.postgres.fair_slots import lend_in_turn
from openguild_runtime.storage.postgres.faults import details_of
from openguild_runtime.storage.postgres.pool import Pool, ProbeTimer
from openguild_runtime.storage.postgres.values import Connection
from openguild_runtime.storage.postgres.write_probe import check_writable, probe_writes


class DatabaseHealth:
    """The result of the last check, and whether anything has failed since. `watching` are the pool's slots for checks."""

    def __init__(self, pool: Pool, watching: anyio.Semaphore) -> None:
        self._pool = pool
        self._watching = watching
        self._writable = True
        self._refusal: str | None = None  # why writes were refused, at the last check that could tell
        self.schema: Schema | None = None  # at the last check
        self.details: dict[str, str] = {}  # of the failure of the last check, for the log
        self.in_doubt = True

    def failed(self, cause: str) -> None:
        """Have the next check make test writes, unless the cause is temporary."""
        if cause not in PASSING:
            self.in_doubt = True

    async def check(self) -> StorageHealth:
        """Check with a query in a session of the pool, or with test writes in a new session at the start and after a failure."""
        self._pool.follow_primary()
        self.details = {}
        schema.steps()  # the first call is slow, so it comes before the time limit
        try:
            if not self.in_doubt:
                with suppress(StorageUnavailable):  # the test writes find the cause
                    await self._pool.probe(self._query)
                    return self._found()
            self.in_doubt = False  # set again by failures from here on
            await self._pool.probe(self._write)
        except Exception as failure:
            self.in_doubt = True
            cause = self._pool.cause_of(failure)
            if cause is None:
                raise
            if cause == "too_many_connections" and await self._serves_on():
                return self._found()
            self.details = details_of(failure)
            return self._found(cause)
        if not self._writable:
            self._writable = True
            await self._pool.renew()  # sessions from before may still be read-only
        return self._found()

    def _found(self, cause: str | None = None) -> StorageHealth:
        if cause in PASSING and self.schema is not None:
            cause = self._refusal  # a temporary cause says nothing about the next write
        else:
            self._refusal = cause if cause in REFUSALS else None
        if cause is None:
            current = self.schema is not None and self.schema.serves
            return StorageHealth(
                database=True, migrations=current, writable=True, cause=None if current else "migrations"
            )
        self._writable = False
        if cause in REFUSALS:
            return StorageHealth(database=True, migrations=True, writable=False, cause=cause)
        return StorageHealth(database=False, migrations=False, writable=False, cause=cause)

    async def _serves_on(self) -> bool:
        """Return whether the open sessions accept writes, when no new ones can be opened. Sessions in use count as writable."""
        if not self._writable or self.schema is None:
            return False  # sessions from before may be read-only
        try:
            await self._pool.probe(lambda timer: self._pool.lend_kept(_write_and_undo))
        except Overloaded:
            return True
        except (StorageUnavailable, TimeoutError):
            return False
        return self._pool.sizes[0] > 0

    async def _query(self, timer: ProbeTimer) -> None:
        async def query(connection: Connection) -> Schema:
            await check_writable(connection)
            timer.restart()
            return await schema.read(connection)

        self.schema = await lend_in_turn(self._pool, self._watching, query)

    async def _write(self, timer: ProbeTimer) -> None:
        async def write(connection: Connection) -> None:
            await check_writable(connection)
            self.schema = await schema.read(connection)  # before the writes, which may fail
            if self.schema.serves:
                await probe_writes(connection)

        del timer  # connecting and writing have one time limit
        await self._pool.connected(write)


async def _write_and_undo(connection: Connection) -> None:
    await check_writable(connection)
    async with connection.transaction():  # the session is used again, so a failed write must be rolled back
        await probe_writes(connection)

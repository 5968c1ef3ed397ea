"""Reads the lineage of the database, and renews the epochs of all channels after it has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import asyncpg
import structlog

from openguild_proto.effects.performs import performs
from openguild_proto.effects.replica import RecordLineage, RenewEpochs
from openguild_proto.records import History, StoredEvent
from openguild_runtime.storage.migrations import NEW_EPOCHS
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.values import Connection, Row

RENEW_LIMIT_SECS = 300.0  # it writes a row per channel

# The timeline of the newest WAL: the control file shows it only after the first checkpoint of a promoted server.
LINEAGE = """
CASE WHEN NOT pg_is_in_recovery() THEN
    (SELECT system_identifier FROM pg_control_system()) || ':' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)
END
"""
# A copy within the cluster (CREATE DATABASE ... TEMPLATE) has the random ID of the original, but another oid.
OID = "(SELECT oid FROM pg_database WHERE datname = current_database())"
DATABASE = f"database || '-' || {OID}"
# $1 are events stored in the channels $2. Events of deleted channels do not count as missing, nor those of guilds that another
# server owns by now, whose logs are replaced; `elsewhere` are their channels.
READ = """
SELECT renewals, {database} AS database, lineage AS recorded, {lineage} AS lineage, pg_is_in_recovery() AS standby, EXISTS (
    SELECT FROM unnest($1::text[], $2::uuid[]) AS witness (event_id, channel_id) JOIN channels USING (channel_id)
    WHERE origin IS NULL AND NOT EXISTS (
        SELECT FROM log_events AS e WHERE e.log_id = witness.channel_id AND e.event_id = witness.event_id
    )
) AS lacks, ARRAY(SELECT channel_id::text FROM channels WHERE channel_id = ANY ($2::uuid[]) AND origin IS NOT NULL) AS elsewhere
FROM log_history
"""
READ_ALL = READ.format(database=DATABASE, lineage=LINEAGE)
READ_WITHOUT_LINEAGE = READ.format(database=DATABASE, lineage="NULL")
RECORD = "UPDATE log_history SET lineage = $1 WHERE lineage IS NULL AND renewals = $2"
# The count must exceed that of replicas that have seen more renewals than a restored database.
CLAIM = (
    "UPDATE log_history SET renewals = greatest(renewals + 1, $2), lineage = coalesce($3, lineage), "
    "database = gen_random_uuid() WHERE renewals = $1"
)

# Services that are compatible with PostgreSQL may refuse or lack these functions.
UNSUPPORTED = (asyncpg.UndefinedFunctionError, asyncpg.InsufficientPrivilegeError, asyncpg.FeatureNotSupportedError)

Witnesses: TypeAlias = dict[object, tuple[str, str]]
"""(event ID, channel ID) by session; the key None has the first event of all."""

MAX_WITNESSES = 64  # more than the sessions of a pool, since sessions are replaced while no reading succeeds

log = structlog.get_logger("openguild.storage")


class HistoryReader:
    """Reads the lineage, if the database permits it, and checks that events stored by this replica still exist.

    It checks events stored since the last reading: the newest of each session, because a session ends with its database, and
    the first of all, because sessions of a pooler do not. If there are none, it checks the previous ones again.
    """

    def __init__(self) -> None:
        self._has_lineage = True
        self._fresh: Witnesses = {}
        self._settled: Witnesses = {}

    def stored(self, connection: Connection, event: StoredEvent) -> None:
        """Note an event that this replica has committed through `connection`."""
        fresh, witness = self._fresh, (event.event_id, event.log_id)
        fresh.setdefault(None, witness)
        session = connection.get_settings()  # one object per session, also within the pool's proxy
        fresh.pop(session, None)
        fresh[session] = witness
        if len(fresh) > MAX_WITNESSES:
            del fresh[next(session for session in fresh if session is not None)]

    async def read(self, connection: Connection) -> History | None:
        """Read the lineage, or return None if its table is empty. Raises asyncpg's exceptions."""
        asked, self._fresh = self._fresh, {}
        succeeded = False
        try:
            row = await self._ask(connection, [*self._settled.values(), *asked.values()])
            succeeded = row is not None and not row["standby"]
        finally:
            if not succeeded and asked:
                self._fresh = asked | self._fresh | {None: asked[None]}
        if row is None:  # the table was emptied manually
            return None
        if succeeded:
            self._settled = {} if row["lacks"] else asked or self._settled  # a missing event is reported once
            self._forget(row["elsewhere"])
        return History(
            row["lineage"],
            row["recorded"],
            row["renewals"],
            lacks=row["lacks"],
            standby=row["standby"],
            database=row["database"],
        )

    def _forget(self, channels: Sequence[str]) -> None:
        """Stop checking events of these channels, whose guilds may return without them."""
        self._settled = {key: witness for key, witness in self._settled.items() if witness[1] not in channels}

    async def _ask(self, connection: Connection, witnesses: list[tuple[str, str]]) -> Row | None:
        events, channels = [event for event, _ in witnesses], [channel for _, channel in witnesses]
        try:
            return await connection.fetchrow(READ_ALL if self._has_lineage else READ_WITHOUT_LINEAGE, events, channels)
        except UNSUPPORTED as refused:
            if not self._has_lineage:
                raise
            self._has_lineage = False
            log.warning(
                "the database does not tell its timeline: after a failover run `openguild-server migrate --new-epoch`",
                kind=type(refused).__name__,
            )
            return await self._ask(connection, witnesses)


@performs(RecordLineage, Mode.WATCH)
async def record_lineage(connection: Connection, effect: RecordLineage) -> None:
    await connection.execute(RECORD, effect.found.lineage, effect.found.renewals)


@performs(RenewEpochs, Mode.WATCH)
async def renew_epochs(connection: Connection, effect: RenewEpochs) -> bool:
    """Renew the epochs in one transaction; return False if another replica has done so since `found` was read."""
    found = effect.found
    async with connection.transaction(isolation="read_committed"):
        await connection.execute("SET LOCAL statement_timeout = 0")
        if await connection.execute(CLAIM, found.renewals, effect.at_least, found.lineage) != "UPDATE 1":
            return False
        await connection.execute(NEW_EPOCHS, timeout=RENEW_LIMIT_SECS)
        return True

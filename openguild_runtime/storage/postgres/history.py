"""Which history the database has, and new epochs for all channels when it has another one."""

from __future__ import annotations

import asyncpg
import structlog

from openguild_proto.effects.replica import RecordLineage, RenewEpochs
from openguild_proto.records import History, StoredEvent
from openguild_runtime.storage.migrations import NEW_EPOCHS
from openguild_runtime.storage.postgres.values import Connection

RENEW_LIMIT_SECS = 300.0  # a row is written for each channel

# The timeline as of the newest WAL: the control file has it only after the first checkpoint of a promoted server.
LINEAGE = """
CASE WHEN NOT pg_is_in_recovery() THEN
    (SELECT system_identifier FROM pg_control_system()) || ':' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)
END
"""
# $1 is an event that was stored in channel $2: missing without its channel it was deleted with it.
READ = """
SELECT renewals, lineage AS recorded, {lineage} AS lineage, pg_is_in_recovery() AS standby, EXISTS (
    SELECT FROM channels WHERE channel_id = $2 AND NOT EXISTS (SELECT FROM channel_events WHERE event_id = $1)
) AS lacks FROM log_history
"""
READ_ALL = READ.format(lineage=LINEAGE)
READ_WITHOUT_LINEAGE = READ.format(lineage="NULL")
RECORD = "UPDATE log_history SET lineage = $1 WHERE lineage IS NULL AND renewals = $2"
# A replica that knew more renewals than a database that went back must find its count raised as well.
CLAIM = (
    "UPDATE log_history SET renewals = greatest(renewals + 1, $2), lineage = coalesce($3, lineage) WHERE renewals = $1"
)

# Services that are not quite PostgreSQL refuse these functions, or do not have them.
UNTOLD = (asyncpg.UndefinedFunctionError, asyncpg.InsufficientPrivilegeError, asyncpg.FeatureNotSupportedError)

log = structlog.get_logger("openguild.storage")


class HistoryReader:
    """Asks for the lineage until the database refuses to tell, and for the first event stored between the two readings before.

    The newest one would say nothing: it may have been stored in the database that took the other's place since.
    """

    def __init__(self) -> None:
        self._told = True
        self._next: StoredEvent | None = None
        self._witness: StoredEvent | None = None

    def stored(self, event: StoredEvent) -> None:
        """This replica has committed it."""
        self._next = self._next or event

    async def read(self, connection: Connection) -> History | None:
        """Raises what asyncpg raises."""
        try:
            row = await connection.fetchrow(
                READ_ALL if self._told else READ_WITHOUT_LINEAGE,
                self._witness.event_id if self._witness is not None else None,
                self._witness.channel_id if self._witness is not None else None,
            )
        except UNTOLD as refused:
            if not self._told:
                raise
            self._told = False
            log.warning(
                "the database does not tell its timeline: after a failover run `openguild-server migrate --new-epoch`",
                kind=type(refused).__name__,
            )
            return await self.read(connection)
        if row is None:  # somebody has emptied the table
            return None
        if not row["standby"]:
            self._witness, self._next = self._next or self._witness, None
        if row["lacks"]:
            self._witness = None  # said once
        return History(row["lineage"], row["recorded"], row["renewals"], lacks=row["lacks"], standby=row["standby"])


async def record_lineage(connection: Connection, effect: RecordLineage) -> None:
    await connection.execute(RECORD, effect.found.lineage, effect.found.renewals)


async def renew_epochs(connection: Connection, effect: RenewEpochs) -> bool:
    """One transaction; False: somebody else has renewed them since `found` was read."""
    found = effect.found
    async with connection.transaction(isolation="read_committed"):
        await connection.execute("SET LOCAL statement_timeout = 0")
        if await connection.execute(CLAIM, found.renewals, effect.at_least, found.lineage) != "UPDATE 1":
            return False
        await connection.execute(NEW_EPOCHS, timeout=RENEW_LIMIT_SECS)
        return True

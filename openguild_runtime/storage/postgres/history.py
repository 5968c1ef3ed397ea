"""Which history the database has, and new epochs for all channels when it has another one."""

from __future__ import annotations

from typing import TypeAlias

import asyncpg
import structlog

from openguild_proto.effects.performs import performs
from openguild_proto.effects.replica import RecordLineage, RenewEpochs
from openguild_proto.records import History, StoredEvent
from openguild_runtime.storage.migrations import NEW_EPOCHS
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.values import Connection, Row

RENEW_LIMIT_SECS = 300.0  # a row is written for each channel

# The timeline as of the newest WAL: the control file has it only after the first checkpoint of a promoted server.
LINEAGE = """
CASE WHEN NOT pg_is_in_recovery() THEN
    (SELECT system_identifier FROM pg_control_system()) || ':' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)
END
"""
# $1 are events that were stored in the channels $2: one that is missing without its channel was deleted with it.
READ = """
SELECT renewals, lineage AS recorded, {lineage} AS lineage, pg_is_in_recovery() AS standby, EXISTS (
    SELECT FROM unnest($1::text[], $2::uuid[]) AS witness (event_id, channel_id) JOIN channels USING (channel_id)
    WHERE NOT EXISTS (
        SELECT FROM log_events AS e WHERE e.log_id = witness.channel_id AND e.event_id = witness.event_id
    )
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

Witnesses: TypeAlias = dict[object, tuple[str, str]]
"""(event id, channel id) by session; None: the first one of all."""

MAX_WITNESSES = 64  # a pool's sessions, and those that followed them while no reading succeeded

log = structlog.get_logger("openguild.storage")


class HistoryReader:
    """Asks for the lineage until the database refuses to tell, and for events that this replica stored.

    Of those stored since the last reading: the newest one of each session, because a session ends with its database, so
    that none of the database that took the other's place hides what was lost; and the first one, because the sessions
    of a pooler outlive the database. Until there are others they are asked for again.
    """

    def __init__(self) -> None:
        self._told = True
        self._fresh: Witnesses = {}
        self._settled: Witnesses = {}

    def stored(self, connection: Connection, event: StoredEvent) -> None:
        """This replica has committed it through `connection`."""
        fresh, witness = self._fresh, (event.event_id, event.channel_id)
        fresh.setdefault(None, witness)
        session = connection.get_settings()  # one object for each session, whatever the pool wraps it in
        fresh.pop(session, None)
        fresh[session] = witness
        if len(fresh) > MAX_WITNESSES:
            del fresh[next(session for session in fresh if session is not None)]

    async def read(self, connection: Connection) -> History | None:
        """Raises what asyncpg raises."""
        asked, self._fresh = self._fresh, {}
        said = False
        try:
            row = await self._ask(connection, [*self._settled.values(), *asked.values()])
            said = row is not None and not row["standby"]
        finally:
            if not said and asked:
                self._fresh = asked | self._fresh | {None: asked[None]}
        if row is None:  # somebody has emptied the table
            return None
        if said:
            self._settled = {} if row["lacks"] else asked or self._settled  # that one is missing is said once
        return History(row["lineage"], row["recorded"], row["renewals"], lacks=row["lacks"], standby=row["standby"])

    async def _ask(self, connection: Connection, witnesses: list[tuple[str, str]]) -> Row | None:
        events, channels = [event for event, _ in witnesses], [channel for _, channel in witnesses]
        try:
            return await connection.fetchrow(READ_ALL if self._told else READ_WITHOUT_LINEAGE, events, channels)
        except UNTOLD as refused:
            if not self._told:
                raise
            self._told = False
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
    """One transaction; False: somebody else has renewed them since `found` was read."""
    found = effect.found
    async with connection.transaction(isolation="read_committed"):
        await connection.execute("SET LOCAL statement_timeout = 0")
        if await connection.execute(CLAIM, found.renewals, effect.at_least, found.lineage) != "UPDATE 1":
            return False
        await connection.execute(NEW_EPOCHS, timeout=RENEW_LIMIT_SECS)
        return True

"""Runs the transaction of an effect, and stores the events and control records of its change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from msgspec.structs import replace

from openguild_proto.effects import StorageEffect
from openguild_proto.errors import LocalProtocolError
from openguild_proto.records import ControlKind, ControlRecord, LogPosition, StoredEvent
from openguild_proto.schemas.log_entries import Entries
from openguild_proto.schemas.log_writer import LogWriter
from openguild_runtime.storage.postgres.values import Connection, Row, moment

CONTROL_COLUMNS = "sequence, kind, guild_id, channel_id, user_id, session_ids, body"

# Locks the counter's row until the end of the transaction, so that sequences become visible in order without gaps.
APPEND_CONTROL = """
WITH next AS (UPDATE control_head SET sequence = sequence + 1 RETURNING sequence)
INSERT INTO control_log (sequence, kind, guild_id, channel_id, user_id, session_ids, body)
SELECT next.sequence, $1, $2, $3, $4, $5, $6 FROM next
RETURNING sequence
"""
# One statement, because every change of members and every revocation on this server waits for the counter.
APPEND_CONTROLS = """
WITH next AS (
    UPDATE control_head SET sequence = sequence + cardinality($2::text[])
    RETURNING sequence - cardinality($2::text[]) AS former
)
INSERT INTO control_log (sequence, kind, guild_id, channel_id, user_id, session_ids, body)
SELECT next.former + given.place, given.kind, $1, given.channel_id, given.user_id, '{}', given.body::json
FROM next, unnest($2::text[], $3::uuid[], $4::uuid[], $5::text[]) WITH ORDINALITY
    AS given (kind, channel_id, user_id, body, place)
RETURNING sequence
"""

# Locks the logs' rows until the end of the transaction, for the same reason.
HOLD_IN_ORDER = "SELECT FROM logs WHERE log_id = ANY ($1::uuid[]) ORDER BY kind, log_id FOR NO KEY UPDATE"
TAKE_PLACES = """
UPDATE logs SET head_sequence = head_sequence + taken.places FROM unnest($1::uuid[], $2::bigint[]) AS taken (id, places)
WHERE log_id = taken.id RETURNING log_id, epoch, head_sequence - taken.places AS former
"""
APPEND_EVENTS = """
INSERT INTO log_events (log_id, sequence, event_id, event_type, wire, sender_id, created_at, fingerprint, message_number)
SELECT log_id, sequence, event_id, event_type, wire, sender_id, created_at, '', 0
FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::bytea[], $6::text[], $7::timestamptz[])
    AS e (log_id, sequence, event_id, event_type, wire, sender_id, created_at)
"""


Change: TypeAlias = tuple[Entries, str | None, int]
"""A change in the logs of guilds and users: entries, their sender (None for the operator), the time in UTC milliseconds."""


class GuildControl(NamedTuple):
    """A control record of a guild without its sequence."""

    kind: ControlKind
    channel_id: str | None = None
    user_id: str | None = None
    body: str | None = None


class Transaction:
    """A running transaction. `records` (control log) and `events` (guild and user logs) are announced after the commit.

    Lock order: users by ID, guilds by ID, an idempotency key, rows of mirrors, channels by ID, invites; then the logs of
    channels, of guilds, of users, each by ID; the counter of the control log last. Users of other servers that the owner of a
    mirrored guild names are created and renamed after that guild, in one statement.
    """

    __slots__ = ("_writer", "connection", "events", "records")

    def __init__(self, connection: Connection, writer: LogWriter) -> None:
        self.connection = connection
        self._writer = writer
        self.records: list[ControlRecord] = []
        self.events: list[StoredEvent] = []

    @property
    def server_name(self) -> str:
        """The name of this server."""
        return self._writer.server_name

    async def hold_logs(self, log_ids: Sequence[str]) -> None:
        """Lock logs in order. Later appends in this transaction need not follow the order then."""
        await self.connection.execute(HOLD_IN_ORDER, log_ids)

    async def append(self, entries: Entries, *, sender: str | None, now_ms: int) -> None:
        """Append to the logs of guilds and users. `sender` is the user who made the change, or None for the operator."""
        await self.append_each([(entries, sender, now_ms)])

    async def append_each(self, changes: Sequence[Change]) -> None:
        """Append the entries of several changes in a few statements, because the logs are locked meanwhile."""
        counts = Counter(log_id for entries, _, _ in changes for log_id, _ in entries)
        if not counts:
            return
        if len(counts) > 1:
            await self.hold_logs(list(counts))
        taken = await self.connection.fetch(TAKE_PLACES, list(counts), list(counts.values()))
        places = {str(row["log_id"]): LogPosition(str(row["log_id"]), row["epoch"], row["former"]) for row in taken}
        if len(places) < len(counts):
            raise LocalProtocolError("a guild and a user have a log as long as they exist")
        rows = []
        for entries, sender, now_ms in changes:
            at = moment(now_ms)
            for log_id, content in entries:
                place = places[log_id] = replace(places[log_id], sequence=places[log_id].sequence + 1)
                built = self._writer.write(place, content, sender=sender, now_ms=now_ms)
                rows.append((log_id, place.sequence, built.event_id, content.event_type, built.wire, sender or "", at))
                self.events.append(StoredEvent(log_id, place.sequence, built.event_id, built.wire, now_ms))
        await self.connection.execute(APPEND_EVENTS, *zip(*rows, strict=True))

    async def log(
        self,
        kind: ControlKind,
        *,
        guild_id: str | None = None,
        channel_id: str | None = None,
        user_id: str | None = None,
        session_ids: Sequence[str] = (),
        body: str | None = None,
    ) -> None:
        """Append to the control log; must be the last statement of the transaction."""
        sequence = await self.connection.fetchval(
            APPEND_CONTROL, kind.value, guild_id, channel_id, user_id, list(session_ids), body
        )
        self.records.append(
            ControlRecord(
                sequence=sequence,
                kind=kind,
                guild_id=guild_id,
                channel_id=channel_id,
                user_id=user_id,
                session_ids=tuple(session_ids),
                body=body,
            )
        )

    async def log_of_guild(self, guild_id: str, records: Sequence[GuildControl]) -> None:
        """Append many records of a guild to the control log; must be the last statement of the transaction."""
        if not records:
            return
        kinds, channels, users, bodies = zip(*records, strict=True)
        rows = await self.connection.fetch(
            APPEND_CONTROLS, guild_id, [kind.value for kind in kinds], channels, users, bodies
        )
        first = min(row["sequence"] for row in rows)
        self.records += [
            ControlRecord(first + place, record.kind, guild_id, record.channel_id, record.user_id, body=record.body)
            for place, record in enumerate(records)
        ]


async def run_transaction(
    connection: Connection,
    function: Callable[[Transaction, Any], Awaitable[Any]],
    effect: StorageEffect[Any],
    *,
    writer: LogWriter,
    snapshot: bool,
    limit_secs: float | None = None,
) -> tuple[Any, Transaction]:
    """Run `function(transaction, effect)` in a transaction. Return its result and the ended transaction.

    With `snapshot`, all statements read one snapshot, and none may write. `limit_secs` replaces the session's statement timeout.
    """
    tx = Transaction(connection, writer)
    async with connection.transaction(isolation="repeatable_read" if snapshot else "read_committed", readonly=snapshot):
        if limit_secs is not None:
            await connection.execute(f"SET LOCAL statement_timeout = {int(limit_secs * 1000)}")
        result = await function(tx, effect)
    return result, tx


def control_record(row: Row) -> ControlRecord:
    """Return the record of a row with `CONTROL_COLUMNS`."""
    return ControlRecord(
        sequence=row["sequence"],
        kind=ControlKind(row["kind"]),
        guild_id=str(row["guild_id"]) if row["guild_id"] is not None else None,
        channel_id=str(row["channel_id"]) if row["channel_id"] is not None else None,
        user_id=str(row["user_id"]) if row["user_id"] is not None else None,
        session_ids=tuple(str(session_id) for session_id in row["session_ids"]),
        body=row["body"],
    )

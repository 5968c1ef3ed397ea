"""Runs the transaction of an effect, and writes the events and control records of its change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from openguild_proto.effects import StorageEffect
from openguild_proto.errors import LocalProtocolError
from openguild_proto.records import ControlKind, ControlRecord, LogPlace
from openguild_proto.schemas.log_entries import Entries
from openguild_proto.schemas.log_writer import LogWriter
from openguild_runtime.storage.postgres.values import Connection, Row, moment

CONTROL_COLUMNS = "sequence, kind, guild_id, channel_id, user_id, session_ids, body"

# The row of the counter is locked to the end of the transaction, so sequences become visible in order without gaps.
APPEND_CONTROL = """
WITH next AS (UPDATE control_head SET sequence = sequence + 1 RETURNING sequence)
INSERT INTO control_log (sequence, kind, guild_id, channel_id, user_id, session_ids, body)
SELECT next.sequence, $1, $2, $3, $4, $5, $6 FROM next
RETURNING sequence
"""

# The row of the log is locked to the end of the transaction, for the same reason.
NEXT_PLACE = "UPDATE logs SET head_sequence = head_sequence + 1 WHERE log_id = $1 RETURNING epoch, head_sequence"
APPEND_EVENT = """
INSERT INTO log_events (log_id, sequence, event_id, event_type, sender_id, wire, created_at, fingerprint, message_number)
VALUES ($1, $2, $3, $4, $5, $6, $7, '', 0)
"""


class Transaction:
    """A running transaction. `records`: the control records it wrote, to be announced after the commit.

    Lock order: users by id, guilds by id, channels by id, invites; then the logs of channels, of guilds, of users, each by id;
    the counter of the control log last.
    """

    __slots__ = ("_writer", "connection", "records")

    def __init__(self, connection: Connection, writer: LogWriter) -> None:
        self.connection = connection
        self._writer = writer
        self.records: list[ControlRecord] = []

    async def append(self, entries: Entries, *, sender: str | None, now_ms: int) -> None:
        """Append to the logs of guilds and users. `sender`: the user who made the change; None: the operator."""
        for log_id, content in entries:
            row = await self.connection.fetchrow(NEXT_PLACE, log_id)
            if row is None:
                raise LocalProtocolError("a guild and a user have a log as long as they exist")
            place = LogPlace(log_id, row["epoch"], row["head_sequence"])
            built = self._writer.write(place, content, sender=sender, now_ms=now_ms)
            await self.connection.execute(
                APPEND_EVENT,
                log_id,
                place.sequence,
                built.event_id,
                content.event_type,
                sender or "",
                built.wire,
                moment(now_ms),
            )

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


async def run_transaction(
    connection: Connection,
    function: Callable[[Transaction, Any], Awaitable[Any]],
    effect: StorageEffect[Any],
    *,
    writer: LogWriter,
    snapshot: bool,
) -> tuple[Any, list[ControlRecord]]:
    """Run `function(transaction, effect)` in a transaction. Return its result and the control records that it wrote.

    `snapshot`: all statements read as of one moment, and none writes.
    """
    tx = Transaction(connection, writer)
    async with connection.transaction(isolation="repeatable_read" if snapshot else "read_committed", readonly=snapshot):
        result = await function(tx, effect)
    return result, tx.records


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

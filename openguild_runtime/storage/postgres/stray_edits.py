"""Edits without effect on a message, because another server with other rules sent them, or the message is not stored here.

A redaction of the message removes their texts too.
"""

from __future__ import annotations

from openguild_proto.canonical.redaction import redacted_wire
from openguild_proto.log.changes import stray_place
from openguild_proto.schemas.events import parse_event
from openguild_runtime.storage.postgres.values import Connection

STRAYS_AT_ONCE = 20  # their number is not bounded: another server sends them
STRAY_EDITS = """
SELECT sequence, wire FROM log_events WHERE log_id = $1 AND event_type = 'message.edited' AND target = $2
AND sequence > $3 ORDER BY sequence LIMIT $4
"""
REPLACE_WIRES = """
UPDATE log_events AS e SET wire = given.wire FROM unnest($2::bigint[], $3::bytea[]) AS given (sequence, wire)
WHERE e.log_id = $1 AND e.sequence = given.sequence
"""


async def redact_strays(connection: Connection, log_id: str, target: str, redacted_by: str) -> None:
    """Remove the texts of edits without effect on a message, which may not be stored here."""
    place, after = stray_place(target), 0
    while rows := await connection.fetch(STRAY_EDITS, log_id, place, after, STRAYS_AT_ONCE):
        strays = [row for row in rows if parse_event(row["wire"]).content.get("target") == target]
        wires = [redacted_wire(row["wire"], redacted_by) for row in strays]
        await connection.execute(REPLACE_WIRES, log_id, [row["sequence"] for row in strays], wires)
        after = rows[-1]["sequence"]

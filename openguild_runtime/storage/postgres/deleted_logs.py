"""Deletes logs: small ones together with their guild or channel, large ones in batches afterwards.

Reads and appends start at the row of the log or of its channel. Once that is deleted, nothing finds the rest of the log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from openguild_proto.effects.performs import performs
from openguild_proto.effects.retention import PurgeDeleted
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import rows_changed

DeleteLogs: TypeAlias = Callable[[Transaction, Sequence[str]], Awaitable[None]]

# Events, read positions and mentions deleted in the transaction: about a second, during which the guild is locked.
MAX_ROWS_AT_ONCE = 100_000

# Appends lock the log's row first, so deletions have to do the same.
HOLD_LOGS = "SELECT FROM logs WHERE log_id = ANY ($1::uuid[]) ORDER BY log_id FOR UPDATE"
HOLD_SEARCH = "SELECT search_hold_v1($1::uuid[])"  # so that they are not indexed meanwhile
CONTENTS = {  # tables, by the column that names the log
    "search_documents": "log_id",
    "search_progress": "log_id",
    "mentions": "log_id",
    "mentions_of_many": "log_id",
    "reactions": "log_id",
    "message_states": "log_id",
    "channel_read_state": "channel_id",
    "log_events": "log_id",
}
POSITIONS = "channel_read_state"
# The rows of the logs are deleted last. Their locks prevent appends until then.
DELETE_LOGS = {
    table: f"DELETE FROM {table} WHERE {log} = ANY ($1::uuid[])"
    for table, log in {**CONTENTS, "logs": "log_id"}.items()
}
SIZES = """
SELECT log_id::text, head_sequence - coalesce(base_sequence, 0) AS events FROM logs WHERE log_id = ANY ($1::uuid[])
ORDER BY events, log_id
"""
# Read positions can be many more than events: one for each member and channel. A message has up to 50 mentions.
COUNT_OTHERS = """
SELECT (SELECT count(*) FROM (SELECT FROM channel_read_state WHERE channel_id = ANY ($1::uuid[]) LIMIT $2) AS counted)
    + (SELECT count(*) FROM (SELECT FROM mentions WHERE log_id = ANY ($1::uuid[]) LIMIT $2) AS counted)
"""
DELETE_LATER = """
WITH gone AS (DELETE FROM logs WHERE log_id = ANY ($1::uuid[]) RETURNING log_id)
INSERT INTO deleted_logs (log_id) SELECT log_id FROM gone
"""
NEXT = "SELECT log_id FROM deleted_logs ORDER BY log_id LIMIT 1 FOR UPDATE SKIP LOCKED"
# By the log as well, since each partition has rows with the same ctid.
PURGE = tuple(
    f"DELETE FROM {table} WHERE {log} = $1 AND ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {log} = $1 LIMIT $2))"
    for table, log in CONTENTS.items()
)


async def delete_logs(tx: Transaction, log_ids: Sequence[str]) -> None:
    """Delete logs, whose rows the caller has locked, with their events and the states of messages."""
    for statement in (HOLD_SEARCH, *DELETE_LOGS.values()):
        await tx.connection.execute(statement, log_ids)


async def delete_replaced_logs(tx: Transaction, log_ids: Sequence[str]) -> None:
    """Delete logs, whose rows the caller has locked, except for read positions: the logs are stored again at once."""
    await tx.connection.execute(HOLD_SEARCH, log_ids)
    for table, statement in DELETE_LOGS.items():
        if table != POSITIONS:
            await tx.connection.execute(statement, log_ids)


async def end_logs(tx: Transaction, log_ids: Sequence[str]) -> None:
    """Delete logs, whose rows the caller has locked; beyond MAX_ROWS_AT_ONCE, `PurgeDeleted` deletes the contents later."""
    at_once: list[str] = []
    rows = await tx.connection.fetchval(COUNT_OTHERS, log_ids, MAX_ROWS_AT_ONCE + 1)
    for log_id, events in await tx.connection.fetch(SIZES, log_ids):
        rows += events
        if rows <= MAX_ROWS_AT_ONCE:
            at_once.append(log_id)
    later = [log_id for log_id in log_ids if log_id not in at_once]
    if later:
        await tx.connection.execute(HOLD_SEARCH, log_ids)
        await tx.connection.execute(DELETE_LATER, later)
    await delete_logs(tx, at_once)


@performs(PurgeDeleted, Mode.TRANSACTION)
async def purge_deleted(tx: Transaction, effect: PurgeDeleted) -> bool:
    if not await tx.connection.fetchval("SELECT EXISTS (SELECT FROM deleted_logs)"):
        return False  # without locks, which a read-only database would refuse and count as a failure
    log_id = await tx.connection.fetchval(NEXT)
    if log_id is None:
        return False
    left = effect.limit
    for statement in PURGE:
        left -= rows_changed(await tx.connection.execute(statement, log_id, left))
        if left <= 0:
            return True
    await tx.connection.execute("DELETE FROM deleted_logs WHERE log_id = $1", log_id)
    return True

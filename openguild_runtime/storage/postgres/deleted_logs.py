"""Deletes logs: small ones with their guild or channel, large ones a little at a time behind it.

Reads and appends begin at the row of the log, or of its channel: once that is gone nothing finds what is left of the log.
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

MAX_EVENTS_AT_ONCE = 100_000  # of all logs of a deletion: about a second, for which the guild waits

# Whoever appends holds the log's row: it is taken before everything that is deleted with it, in the order of appends.
HOLD_LOGS = "SELECT FROM logs WHERE log_id = ANY ($1::uuid[]) ORDER BY log_id FOR UPDATE"
HOLD_SEARCH = "SELECT search_hold_v1($1::uuid[])"  # nobody indexes them either
CONTENTS = (
    "search_documents",
    "search_progress",
    "mentions",
    "mentions_of_many",
    "reactions",
    "message_states",
    "log_events",
)
# The logs' rows last: until then nobody can append.
DELETE_LOGS = tuple(f"DELETE FROM {table} WHERE log_id = ANY ($1::uuid[])" for table in (*CONTENTS, "logs"))
SIZES = """
SELECT log_id::text, head_sequence - coalesce(base_sequence, 0) AS events FROM logs WHERE log_id = ANY ($1::uuid[])
ORDER BY events, log_id
"""
DELETE_LATER = """
WITH gone AS (DELETE FROM logs WHERE log_id = ANY ($1::uuid[]) RETURNING log_id)
INSERT INTO deleted_logs (log_id) SELECT log_id FROM gone
"""
NEXT = "SELECT log_id FROM deleted_logs ORDER BY log_id LIMIT 1 FOR UPDATE SKIP LOCKED"
# By the log as well: a place in a table of partitions is one in each of them.
PURGE = tuple(
    f"DELETE FROM {table} WHERE log_id = $1 AND ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE log_id = $1 LIMIT $2))"
    for table in CONTENTS
)


async def delete_logs(tx: Transaction, log_ids: Sequence[str]) -> None:
    """Delete logs whose rows are held, with their events and what has become of messages."""
    for statement in (HOLD_SEARCH, *DELETE_LOGS):
        await tx.connection.execute(statement, log_ids)


async def end_logs(tx: Transaction, log_ids: Sequence[str]) -> None:
    """Delete logs whose rows are held, for good. The contents of the largest are left to `PurgeDeleted` where all are too many."""
    at_once, events = [], 0
    for log_id, size in await tx.connection.fetch(SIZES, log_ids):
        events += size
        if events <= MAX_EVENTS_AT_ONCE:
            at_once.append(log_id)
    later = [log_id for log_id in log_ids if log_id not in at_once]
    if later:
        await tx.connection.execute(HOLD_SEARCH, log_ids)
        await tx.connection.execute(DELETE_LATER, later)
    await delete_logs(tx, at_once)


@performs(PurgeDeleted, Mode.TRANSACTION)
async def purge_deleted(tx: Transaction, effect: PurgeDeleted) -> bool:
    if not await tx.connection.fetchval("SELECT EXISTS (SELECT FROM deleted_logs)"):
        return False  # before anything is locked, which a database that takes no writes would refuse, and count
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

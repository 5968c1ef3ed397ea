"""Clears a mirror that is about to be replaced, in batches, so that the replacement itself holds its locks briefly."""

from __future__ import annotations

from openguild_proto.effects.mirrors import ClearMirror, is_behind
from openguild_proto.effects.performs import performs
from openguild_proto.mirror_records import place_of
from openguild_runtime.storage.postgres.deleted_logs import HOLD_LOGS, HOLD_SEARCH
from openguild_runtime.storage.postgres.mirrors import hold_mirror, log_place
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import rows_changed, texts

# Moves of read positions lock the channel before the position.
HOLD_CHANNELS = "SELECT channel_id FROM channels WHERE guild_id = $1 ORDER BY channel_id FOR UPDATE"
LOG_IDS = "SELECT log_id FROM federation_mirrors WHERE guild_id = $1"
# The receipts of the deleted events can no longer be checked, so the chain begins at the heads.
BEGIN_CHAINS = """
UPDATE federation_mirrors AS m SET first_sequence = l.head_sequence, first_hash = m.hash FROM logs AS l
WHERE m.log_id = ANY ($1::uuid[]) AND l.log_id = m.log_id AND m.first_sequence < l.head_sequence
"""
WITH_EVENTS = """
SELECT log_id, base_sequence, head_sequence FROM logs
WHERE log_id = ANY ($1::uuid[]) AND base_sequence < head_sequence ORDER BY log_id
"""
CLEAR = tuple(
    f"DELETE FROM {table} WHERE log_id = $1 AND {sequence} > $2 AND {sequence} <= $3"
    for table, sequence in (
        ("search_documents", "sequence"),
        ("mentions", "sequence"),
        ("mentions_of_many", "sequence"),
        ("reactions", "message"),
        ("message_states", "sequence"),
        ("log_events", "sequence"),
    )
)
BEGIN_AFTER = "UPDATE logs SET base_sequence = $2 WHERE log_id = $1"
MOVE_POSITIONS = """
WITH given AS (
    SELECT channel_id, head, messages FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS row (channel_id, head, messages)
), old AS (
    SELECT s.channel_id, s.user_id, given.head, given.messages FROM channel_read_state AS s JOIN given USING (channel_id)
    WHERE (s.last_read_sequence, s.last_read_messages, s.own_since) <> (given.head, given.messages, 0) LIMIT $4
)
UPDATE channel_read_state AS s SET last_read_sequence = old.head, last_read_messages = old.messages, own_since = 0
FROM old WHERE (s.channel_id, s.user_id) = (old.channel_id, old.user_id)
"""


@performs(ClearMirror, Mode.TRANSACTION)
async def clear_mirror(tx: Transaction, effect: ClearMirror) -> bool:
    snapshot, connection, left = effect.snapshot, tx.connection, effect.limit
    guild = await hold_mirror(tx, snapshot.guild_id)
    if guild is None or guild.origin != effect.origin:
        return False
    if not is_behind(await log_place(connection, snapshot.guild_id), place_of(snapshot)):
        return False
    log_ids = texts(row["log_id"] for row in await connection.fetch(LOG_IDS, snapshot.guild_id))
    await connection.execute(HOLD_LOGS, log_ids)
    channel_ids = set(texts(row["channel_id"] for row in await connection.fetch(HOLD_CHANNELS, snapshot.guild_id)))
    await connection.execute(BEGIN_CHAINS, log_ids)
    await connection.execute(HOLD_SEARCH, log_ids)
    for log_id, base, head in await connection.fetch(WITH_EVENTS, log_ids):
        last = min(head, base + left)
        for statement in CLEAR:
            await connection.execute(statement, log_id, base, last)
        await connection.execute(BEGIN_AFTER, log_id, last)
        left -= last - base
        if left == 0:
            return True
    kept = [line for line in snapshot.channels if line.channel_id in channel_ids]
    moved = await connection.execute(
        MOVE_POSITIONS,
        [line.channel_id for line in kept],
        [line.sequence for line in kept],
        [line.messages for line in kept],
        left,
    )
    return rows_changed(moved) == left

"""Clears a mirror that is about to be replaced, in batches, so that the replacement itself holds its locks briefly."""

from __future__ import annotations

from collections.abc import Sequence

from openguild_proto.effects.mirrors import ClearedPart, ClearMirror, PositionKey, is_behind
from openguild_proto.effects.performs import performs
from openguild_proto.mirror_records import MirroredChannel, place_of
from openguild_runtime.storage.postgres.deleted_logs import HOLD_LOGS, HOLD_SEARCH
from openguild_runtime.storage.postgres.mirrors import BEING_DELETED, TAKEN, hold_mirror, log_place
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, rows_changed, texts

# Moves of read positions lock the channel before the position.
HOLD_CHANNELS = "SELECT channel_id FROM channels WHERE guild_id = $1 ORDER BY channel_id FOR UPDATE"
LOG_IDS = "SELECT log_id FROM federation_mirrors WHERE guild_id = $1"
# The receipts of the deleted events can no longer be checked, so the chain begins at the heads.
BEGIN_CHAINS = """
UPDATE federation_mirrors AS m SET first_sequence = l.head_sequence, first_hash = m.hash FROM logs AS l
WHERE m.log_id = ANY ($1::uuid[]) AND l.log_id = m.log_id AND m.first_sequence < l.head_sequence
"""
# What remains here of a log is not its whole history any more, from which `AbsorbHistory` could store the log again.
NOT_COPIED = "UPDATE federation_mirrors SET copied = 0 WHERE log_id = ANY ($1::uuid[]) AND copied > 0"
# The newest first, so that history is copied again from there.
UNSTAGE = """
DELETE FROM federation_history WHERE (log_id, sequence) IN (
    SELECT l.log_id, staged.sequence FROM unnest($1::uuid[]) AS l (log_id), LATERAL (
        SELECT sequence FROM federation_history AS h WHERE h.log_id = l.log_id ORDER BY sequence DESC LIMIT $2
    ) AS staged LIMIT $2
)
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
# $2: where the previous batch ended. Also counts positions that are at the head, so that no batch reads those of the one before.
MOVE_POSITIONS = """
WITH part AS MATERIALIZED (
    SELECT user_id, (last_read_sequence, last_read_messages, own_since) <> ($4::bigint, $5::bigint, 0) AS differs
    FROM channel_read_state WHERE channel_id = $1 AND ($2::uuid IS NULL OR user_id > $2) ORDER BY user_id LIMIT $3
), moved AS (
    UPDATE channel_read_state AS s SET last_read_sequence = $4, last_read_messages = $5, own_since = 0
    FROM part WHERE part.differs AND s.channel_id = $1 AND s.user_id = part.user_id
)
SELECT user_id::text, count(*) OVER () AS count FROM part ORDER BY part.user_id DESC LIMIT 1
"""
MIN_COUNTED = 10  # ours: positions that a channel counts for at least, because its statement takes time too


@performs(ClearMirror, Mode.TRANSACTION)
async def clear_mirror(tx: Transaction, effect: ClearMirror) -> ClearedPart | None:
    snapshot, connection, left = effect.snapshot, tx.connection, effect.limit
    guild = await hold_mirror(tx, snapshot.guild_id)
    if guild is None or guild.origin != effect.origin:
        return None
    if not is_behind(await log_place(connection, snapshot.guild_id), place_of(snapshot)):
        return None
    given = [line.channel_id for line in snapshot.channels]
    if await connection.fetchval(TAKEN, given, snapshot.guild_id) or await connection.fetchval(BEING_DELETED, given):
        return None  # `StoreMirror` refuses the snapshot
    log_ids = texts(row["log_id"] for row in await connection.fetch(LOG_IDS, snapshot.guild_id))
    await connection.execute(HOLD_LOGS, log_ids)
    channel_ids = set(texts(row["channel_id"] for row in await connection.fetch(HOLD_CHANNELS, snapshot.guild_id)))
    await connection.execute(BEGIN_CHAINS, log_ids)
    await connection.execute(NOT_COPIED, log_ids)
    left -= rows_changed(await connection.execute(UNSTAGE, log_ids, left))
    if left == 0:
        return ClearedPart()
    await connection.execute(HOLD_SEARCH, log_ids)
    for log_id, base, head in await connection.fetch(WITH_EVENTS, log_ids):
        last = min(head, base + left)
        for statement in CLEAR:
            await connection.execute(statement, log_id, base, last)
        await connection.execute(BEGIN_AFTER, log_id, last)
        left -= last - base
        if left == 0:
            return ClearedPart()
    kept = sorted(
        (line for line in snapshot.channels if line.channel_id in channel_ids), key=lambda line: line.channel_id
    )
    return await _move_positions(connection, kept, effect.past, left)


async def _move_positions(
    connection: Connection, lines: Sequence[MirroredChannel], past: PositionKey | None, limit: int
) -> ClearedPart | None:
    """Move the read positions after `past` to the heads, by channel and user. Return the last one if there may be more."""
    left = limit
    for line in lines:
        if past is not None and line.channel_id < past.channel_id:
            continue
        after = past.user_id if past is not None and line.channel_id == past.channel_id else None
        last = await connection.fetchrow(MOVE_POSITIONS, line.channel_id, after, left, line.sequence, line.messages)
        count = last["count"] if last is not None else 0
        if last is not None and count == left:
            return ClearedPart(PositionKey(line.channel_id, last["user_id"]))
        left = max(1, left - max(count, MIN_COUNTED))
    return None

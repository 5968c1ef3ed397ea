"""Reads of a replica in PostgreSQL: heads of logs, visible channels, audiences and control records."""

from __future__ import annotations

from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.effects.performs import performs
from openguild_proto.effects.replica import FindAudience, ReadControlHead, ReadControls, ReadHeads, ReadVisible, Visible
from openguild_proto.records import ControlRecord, Head
from openguild_runtime.storage.postgres.mentions import CHANNELS_OF_USER
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.transaction import CONTROL_COLUMNS, control_record
from openguild_runtime.storage.postgres.values import Connection, texts


@performs(ReadHeads, Mode.QUERY)
async def read_heads(connection: Connection, effect: ReadHeads) -> dict[str, Head]:
    rows = await connection.fetch(
        "SELECT log_id, head_sequence, epoch FROM logs WHERE log_id = ANY ($1::uuid[])",
        list(effect.channel_ids),
    )
    return {str(row["log_id"]): Head(row["head_sequence"], row["epoch"]) for row in rows}


@performs(ReadVisible, Mode.QUERY)
async def read_visible(connection: Connection, effect: ReadVisible) -> Visible:
    row = await connection.fetchrow(
        f"""
        SELECT ARRAY(SELECT guild_id FROM guild_memberships WHERE user_id = $1 ORDER BY guild_id) AS guilds, ARRAY(
            SELECT channel_id FROM ({CHANNELS_OF_USER}) AS c ORDER BY created_at, channel_id LIMIT $2
        ) AS channels
        """,
        effect.user_id,
        effect.max_channels,
    )
    if row is None:
        raise StorageUnavailable
    return Visible(guild_ids=texts(row["guilds"]), channel_ids=texts(row["channels"]))


@performs(FindAudience, Mode.QUERY)
async def find_audience(connection: Connection, effect: FindAudience) -> dict[str, tuple[str, ...]]:
    rows = await connection.fetch(
        """
        WITH theirs AS MATERIALIZED (
            SELECT user_id, guild_id FROM guild_memberships WHERE user_id = ANY ($1::uuid[])
        ), small AS MATERIALIZED (
            SELECT guild_id FROM (SELECT DISTINCT guild_id FROM theirs) AS g WHERE (
                SELECT count(*) FROM (SELECT FROM guild_memberships AS m WHERE m.guild_id = g.guild_id LIMIT $2 + 1) AS few
            ) <= $2
        )
        SELECT user_id, array_agg(guild_id) AS guilds FROM theirs JOIN small USING (guild_id) GROUP BY user_id
        """,
        list(effect.user_ids),
        effect.max_members,
    )
    return {str(row["user_id"]): texts(row["guilds"]) for row in rows}


@performs(ReadControlHead, Mode.WATCH)
async def read_control_head(connection: Connection, effect: ReadControlHead) -> int:
    head: int = await connection.fetchval("SELECT sequence FROM control_head")
    return head


@performs(ReadControls, Mode.WATCH)
async def read_controls(connection: Connection, effect: ReadControls) -> tuple[ControlRecord, ...]:
    rows = await connection.fetch(
        f"SELECT {CONTROL_COLUMNS} FROM control_log WHERE sequence > $1 ORDER BY sequence LIMIT $2",
        effect.after,
        effect.limit,
    )
    return tuple(control_record(row) for row in rows)

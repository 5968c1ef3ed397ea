"""Channels, their roles, reads of their logs, and read positions in PostgreSQL. For appends see commit_queue.py."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.effects.channels import (
    DeleteChannel,
    FindPosted,
    InsertChannel,
    ListChannels,
    ListUnread,
    MarkRead,
    Posted,
    ReadEvents,
    RenameChannel,
)
from openguild_proto.effects.performs import performs
from openguild_proto.effects.roles import GrantChannelRole
from openguild_proto.errors import ErrorCode, LocalProtocolError, Refusal
from openguild_proto.policy.channels import creator_role
from openguild_proto.policy.count_limits import check_count
from openguild_proto.policy.permissions import Permission
from openguild_proto.records import ChannelRecord, ControlKind, LimitReached, ReadState, StoredEvent
from openguild_proto.schemas.payloads import channel_body
from openguild_runtime.storage.postgres.access import CHANNEL
from openguild_runtime.storage.postgres.authority import hold_users, require_in_channel, require_in_guild
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, Row, bound, moment, to_millis

# One row per event of the page; a single row without an event when the channel exists and the page is empty.
PAGE = """
SELECT e.sequence, e.event_id, e.wire, e.created_at FROM channels AS c LEFT JOIN LATERAL (
    SELECT sequence, event_id, wire, created_at FROM channel_events
    WHERE channel_id = c.channel_id {bound} ORDER BY sequence {order} LIMIT $2
) AS e ON true WHERE c.channel_id = $1 ORDER BY e.sequence
"""
PAGE_AFTER = PAGE.format(bound="AND sequence > $3", order="")
PAGE_BEFORE = PAGE.format(bound="AND sequence < $3", order="DESC")
PAGE_NEWEST = PAGE.format(bound="", order="DESC")


@performs(InsertChannel, Mode.TRANSACTION)
async def insert_channel(tx: Transaction, effect: InsertChannel) -> ChannelRecord | LimitReached:
    now, creator_id = moment(effect.now_ms), effect.author.user_id
    access, _ = await require_in_guild(tx, effect.author, effect.guild_id, Permission.CREATE_CHANNELS)
    count = await tx.connection.fetchval("SELECT count(*) FROM channels WHERE guild_id = $1", effect.guild_id)
    full = check_count(count, effect.limit)
    if full is not None:
        return full
    row = await tx.connection.fetchrow(
        f"INSERT INTO channels (channel_id, guild_id, name, created_at) VALUES ($1, $2, $3, $4) RETURNING {CHANNEL}",
        effect.channel_id,
        effect.guild_id,
        effect.name,
        now,
    )
    if row is None:
        raise StorageUnavailable
    record = CHANNEL.record(row)
    role = creator_role(access.role)
    if role is not None:
        await tx.connection.execute(
            "INSERT INTO channel_memberships (channel_id, user_id, role, joined_at) VALUES ($1, $2, $3, $4)",
            effect.channel_id,
            creator_id,
            role,
            now,
        )
    await tx.log(
        ControlKind.CHANNEL_CREATED,
        guild_id=effect.guild_id,
        channel_id=effect.channel_id,
        user_id=creator_id,
        body=channel_body(record),
    )
    return record


@performs(ListChannels, Mode.QUERY)
async def list_channels(connection: Connection, effect: ListChannels) -> tuple[ChannelRecord, ...]:
    rows = await connection.fetch(
        f"""
        SELECT {CHANNEL} FROM channels WHERE guild_id = $1
          AND ($3::timestamptz IS NULL OR (created_at, channel_id) > ($3, $4::uuid))
        ORDER BY created_at, channel_id LIMIT $2
        """,
        effect.guild_id,
        effect.limit,
        *bound(effect.after),
    )
    return tuple(CHANNEL.record(row) for row in rows)


@performs(RenameChannel, Mode.TRANSACTION)
async def rename_channel(tx: Transaction, effect: RenameChannel) -> ChannelRecord:
    await require_in_channel(tx, effect.author, effect.channel_id, Permission.RENAME)
    row = await tx.connection.fetchrow(
        f"UPDATE channels SET name = $2 WHERE channel_id = $1 RETURNING {CHANNEL}", effect.channel_id, effect.name
    )
    if row is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return CHANNEL.record(row)


@performs(DeleteChannel, Mode.TRANSACTION)
async def delete_channel(tx: Transaction, effect: DeleteChannel) -> None:
    await require_in_channel(tx, effect.author, effect.channel_id, Permission.DELETE)
    guild_id = await tx.connection.fetchval(
        "DELETE FROM channels WHERE channel_id = $1 RETURNING guild_id", effect.channel_id
    )
    if guild_id is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    await tx.log(ControlKind.CHANNEL_DELETED, guild_id=str(guild_id), channel_id=effect.channel_id)


@performs(GrantChannelRole, Mode.TRANSACTION)
async def grant_channel_role(tx: Transaction, effect: GrantChannelRole) -> bool:
    await hold_users(tx, [effect.user_id])
    guild_id = await tx.connection.fetchval(
        """
        WITH channel AS (SELECT channel_id FROM channels WHERE channel_id = $1 FOR KEY SHARE), granted AS (
            INSERT INTO channel_memberships (channel_id, user_id, role, joined_at)
            SELECT channel_id, user_id, $3, $4 FROM channel, users WHERE user_id = $2
            ON CONFLICT (channel_id, user_id) DO UPDATE SET role = EXCLUDED.role RETURNING channel_id
        ) SELECT guild_id FROM granted JOIN channels USING (channel_id)
        """,
        effect.channel_id,
        effect.user_id,
        effect.role,
        moment(effect.now_ms),
    )
    if guild_id is None:
        return False
    await tx.log(
        ControlKind.ACCESS_CHANGED, guild_id=str(guild_id), channel_id=effect.channel_id, user_id=effect.user_id
    )
    return True


# --- the log, and read positions -------------------------------------------------------------------


@performs(ReadEvents, Mode.QUERY)
async def read_events(connection: Connection, effect: ReadEvents) -> tuple[StoredEvent, ...] | None:
    limit = max(0, effect.limit)
    if effect.after is not None and effect.before is not None:
        raise LocalProtocolError("a page has one bound: after or before")
    if effect.after is not None:
        rows = await connection.fetch(PAGE_AFTER, effect.channel_id, limit, effect.after)
    elif effect.before is not None:
        rows = await connection.fetch(PAGE_BEFORE, effect.channel_id, limit, effect.before)
    else:
        rows = await connection.fetch(PAGE_NEWEST, effect.channel_id, limit)
    if not rows:
        return None
    return tuple(_event(effect.channel_id, row) for row in rows if row["sequence"] is not None)


@performs(FindPosted, Mode.QUERY)
async def find_posted(connection: Connection, effect: FindPosted) -> Posted | None:
    row = await connection.fetchrow(
        """
        SELECT sequence, event_id, wire, created_at, fingerprint FROM channel_events
        WHERE channel_id = $1 AND sender_id = $2 AND nonce = $3
        """,
        effect.channel_id,
        effect.sender_id,
        effect.nonce,
    )
    return Posted(event=_event(effect.channel_id, row), fingerprint=row["fingerprint"]) if row is not None else None


def _event(channel_id: str, row: Row) -> StoredEvent:
    return StoredEvent(
        channel_id=channel_id,
        sequence=row["sequence"],
        event_id=row["event_id"],
        wire=row["wire"],
        created_at_ms=to_millis(row["created_at"]),
    )


def _read_state(row: Row) -> ReadState:
    return ReadState(
        channel_id=str(row["channel_id"]), last_read_sequence=row["last_read"], latest_sequence=row["head_sequence"]
    )


@performs(MarkRead, Mode.TRANSACTION)
async def mark_read(tx: Transaction, effect: MarkRead) -> ReadState:
    await require_in_channel(tx, effect.author, effect.channel_id, Permission.READ)
    row = await tx.connection.fetchrow(
        """
        WITH channel AS (SELECT channel_id, head_sequence FROM channels WHERE channel_id = $1 FOR KEY SHARE), kept AS (
            INSERT INTO channel_read_state AS s (channel_id, user_id, last_read_sequence, updated_at)
            SELECT channel_id, user_id, least(greatest(coalesce($3::bigint, head_sequence), 0), head_sequence), $4
            FROM channel, users WHERE user_id = $2
            ON CONFLICT (channel_id, user_id) DO UPDATE SET
                last_read_sequence = greatest(s.last_read_sequence, EXCLUDED.last_read_sequence),
                updated_at = CASE WHEN EXCLUDED.last_read_sequence > s.last_read_sequence
                             THEN EXCLUDED.updated_at ELSE s.updated_at END
            RETURNING channel_id, last_read_sequence AS last_read
        ) SELECT channel_id, last_read, greatest(head_sequence, last_read) AS head_sequence
        FROM kept JOIN channel USING (channel_id)
        """,
        effect.channel_id,
        effect.author.user_id,
        effect.sequence,
        moment(effect.now_ms),
    )
    if row is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return _read_state(row)


@performs(ListUnread, Mode.QUERY)
async def list_unread(connection: Connection, effect: ListUnread) -> tuple[ReadState, ...]:
    rows = await connection.fetch(
        """
        SELECT c.channel_id, c.created_at, c.head_sequence, coalesce(s.last_read_sequence, 0) AS last_read
        FROM channels AS c LEFT JOIN channel_read_state AS s ON s.channel_id = c.channel_id AND s.user_id = $1
        WHERE (c.guild_id IN (SELECT guild_id FROM guild_memberships WHERE user_id = $1)
            OR c.channel_id IN (SELECT channel_id FROM channel_memberships WHERE user_id = $1))
          AND ($3::timestamptz IS NULL OR (c.created_at, c.channel_id) > ($3, $4::uuid))
        ORDER BY c.created_at, c.channel_id LIMIT $2
        """,
        effect.user_id,
        effect.limit,
        *bound(effect.after),
    )
    return tuple(msgspec.structs.replace(_read_state(row), created_at_ms=to_millis(row["created_at"])) for row in rows)

"""Channels, channel roles, reads of logs, and read positions in PostgreSQL. For appends see append.py."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.channels import (
    DeleteChannel,
    FindPosted,
    InsertChannel,
    ListChannels,
    ListUnread,
    MarkRead,
    Posted,
    ReadEvents,
    UpdateChannel,
)
from openguild_proto.effects.performs import performs
from openguild_proto.effects.roles import GrantChannelRole
from openguild_proto.errors import ErrorCode, LocalProtocolError, Refusal
from openguild_proto.limits import MAX_SEQUENCE
from openguild_proto.policy.channels import creator_role, decide_channel
from openguild_proto.policy.count_limits import check_count
from openguild_proto.policy.permissions import ROLES, Permission, require_owned
from openguild_proto.records import (
    Author,
    ChannelRecord,
    ControlKind,
    LimitReached,
    MemberChange,
    ReadState,
    StoredEvent,
)
from openguild_proto.schemas.log_entries import (
    channel_created,
    channel_deleted,
    channel_role_granted,
    channel_updated,
    position_moved,
)
from openguild_proto.schemas.payloads import channel_body
from openguild_runtime.storage.postgres.access import CHANNEL, CHANNELS
from openguild_runtime.storage.postgres.authority import hold_guild, hold_users, require_in_channel, require_in_guild
from openguild_runtime.storage.postgres.deleted_logs import HOLD_LOGS, end_logs
from openguild_runtime.storage.postgres.mentions import OWN_CHANNELS, UNREAD_MENTIONS, count_unread_mentions
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.repeats import find_repeat, keep_answer
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, Row, bound, moment, rows_changed, to_millis

# One row per event of the page. If the channel exists and the page is empty, a single row without an event.
PAGE = "SELECT sequence, event_id, wire, created_at FROM log_page_v1($1, $2, $3, $4)"
# The number of messages of log `l` before the first event stored here. They are never unread.
NOT_HERE = """
coalesce((
    SELECT e.message_number - 1 FROM log_events AS e
    WHERE e.log_id = l.log_id AND e.event_type = 'message' AND e.sequence > l.base_sequence ORDER BY e.sequence LIMIT 1
), l.message_count)
"""
# Marks a position before the first event stored here. Locks the channel before the position, as mark_read_v1 does.
MARK_BELOW = f"""
INSERT INTO channel_read_state AS s (channel_id, user_id, last_read_sequence, last_read_messages, updated_at)
SELECT l.log_id, $2, $3, {NOT_HERE}, $4
FROM (SELECT channel_id FROM channels WHERE channel_id = $1 FOR KEY SHARE) AS c JOIN logs AS l ON l.log_id = c.channel_id
WHERE l.base_sequence >= $3
ON CONFLICT (channel_id, user_id) DO UPDATE SET last_read_sequence = EXCLUDED.last_read_sequence,
    last_read_messages = EXCLUDED.last_read_messages, updated_at = EXCLUDED.updated_at
WHERE s.last_read_sequence < EXCLUDED.last_read_sequence
"""
MARK_READ = "SELECT channel_id, last_read, head_sequence, unread, moved FROM mark_read_v1($1, $2, $3, $4)"


@performs(InsertChannel, Mode.TRANSACTION)
async def insert_channel(tx: Transaction, effect: InsertChannel) -> ChannelRecord | LimitReached:
    now, creator_id = moment(effect.now_ms), effect.author.user_id
    access, _ = await require_in_guild(tx, effect.author, effect.guild_id, Permission.CREATE_CHANNELS)
    repeated = await find_repeat(tx, effect.author, effect.once, ChannelRecord, effect.now_ms)
    if repeated is not None:
        return repeated
    count = await tx.connection.fetchval("SELECT count(*) FROM channels WHERE guild_id = $1", effect.guild_id)
    full = check_count(count, effect.limit)
    if full is not None:
        return full
    await tx.connection.execute(
        """
        WITH log AS (INSERT INTO logs (log_id, kind) VALUES ($1, 'channel'))
        INSERT INTO channels (channel_id, guild_id, name, created_at, topic, position) VALUES ($1, $2, $3, $4, $5, $6)
        """,
        effect.channel_id,
        effect.guild_id,
        effect.name,
        now,
        effect.topic,
        effect.position,
    )
    record = ChannelRecord(
        channel_id=effect.channel_id,
        guild_id=effect.guild_id,
        name=effect.name,
        created_at_ms=effect.now_ms,
        topic=effect.topic,
        position=effect.position,
    )
    role = creator_role(access.role)
    if role is not None:
        await tx.connection.execute(
            "INSERT INTO channel_memberships (channel_id, user_id, role, joined_at) VALUES ($1, $2, $3, $4)",
            effect.channel_id,
            creator_id,
            role,
            now,
        )
    await keep_answer(tx, effect.author, effect.once, record, effect.now_ms)
    await tx.append(channel_created(record), sender=creator_id, now_ms=effect.now_ms)
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
        SELECT {CHANNEL} FROM {CHANNELS} WHERE guild_id = $1
          AND ($3::timestamptz IS NULL OR (created_at, channel_id) > ($3, $4::uuid))
        ORDER BY created_at, channel_id LIMIT $2
        """,
        effect.guild_id,
        effect.limit,
        *bound(effect.after),
    )
    return tuple(CHANNEL.record(row) for row in rows)


@performs(UpdateChannel, Mode.TRANSACTION)
async def update_channel(tx: Transaction, effect: UpdateChannel) -> ChannelRecord:
    channel = await _hold_channel(tx, effect.author, effect.channel_id, Permission.RENAME)
    changed = decide_channel(channel, name=effect.name, topic=effect.topic, position=effect.position)
    if changed is None:
        return channel
    await tx.connection.execute(
        "UPDATE channels SET name = $2, topic = $3, position = $4 WHERE channel_id = $1",
        effect.channel_id,
        changed.name,
        changed.topic,
        changed.position,
    )
    await tx.append(channel_updated(changed, effect.reason), sender=effect.author.user_id, now_ms=effect.now_ms)
    return changed


@performs(DeleteChannel, Mode.TRANSACTION)
async def delete_channel(tx: Transaction, effect: DeleteChannel) -> None:
    channel = await _hold_channel(tx, effect.author, effect.channel_id, Permission.DELETE)
    await tx.connection.execute(HOLD_LOGS, [effect.channel_id])
    await tx.connection.execute("DELETE FROM channels WHERE channel_id = $1", effect.channel_id)
    await end_logs(tx, [effect.channel_id])
    await tx.append(channel_deleted(channel, effect.reason), sender=effect.author.user_id, now_ms=effect.now_ms)
    await tx.log(ControlKind.CHANNEL_DELETED, guild_id=channel.guild_id, channel_id=effect.channel_id)


async def _hold_channel(tx: Transaction, author: Author, channel_id: str, permission: Permission) -> ChannelRecord:
    """Return the channel and lock its guild, so that nobody else changes or deletes it. Raises Refusal."""
    access = await require_in_channel(tx, author, channel_id, permission)
    if access is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    await hold_guild(tx, access.channel.guild_id)
    row = await tx.connection.fetchrow(f"SELECT {CHANNEL} FROM {CHANNELS} WHERE channel_id = $1", channel_id)
    if row is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    channel = CHANNEL.record(row)
    require_owned(channel.origin)
    return channel


# Whether the user is of another server and not a member of the channel's guild, so that their server does not mirror it.
IS_STRANGER = """
SELECT EXISTS (
    SELECT FROM channels AS c JOIN users AS u ON u.user_id = $2 AND u.origin IS NOT NULL
    WHERE c.channel_id = $1 AND c.origin IS NULL AND NOT EXISTS (
        SELECT FROM guild_memberships AS m WHERE m.guild_id = c.guild_id AND m.user_id = u.user_id
    )
)
"""


@performs(GrantChannelRole, Mode.TRANSACTION)
async def grant_channel_role(tx: Transaction, effect: GrantChannelRole) -> bool | MemberChange:
    await hold_users(tx, [effect.user_id])
    await tx.connection.execute(
        "SELECT FROM guilds WHERE guild_id = (SELECT guild_id FROM channels WHERE channel_id = $1) FOR NO KEY UPDATE",
        effect.channel_id,
    )
    if await tx.connection.fetchval(IS_STRANGER, effect.channel_id, effect.user_id):
        return MemberChange.NOT_MEMBER
    row = await tx.connection.fetchrow(
        f"""
        WITH channel AS (
            SELECT channel_id FROM channels WHERE channel_id = $1 AND origin IS NULL FOR KEY SHARE
        ), granted AS (
            INSERT INTO channel_memberships (channel_id, user_id, role, joined_at)
            SELECT channel_id, user_id, $3, $4 FROM channel, users WHERE user_id = $2
            ON CONFLICT (channel_id, user_id) DO UPDATE SET role = EXCLUDED.role RETURNING channel_id
        ) SELECT {CHANNEL} FROM granted JOIN {CHANNELS} USING (channel_id)
        """,
        effect.channel_id,
        effect.user_id,
        effect.role,
        moment(effect.now_ms),
    )
    if row is None:
        return False
    channel = CHANNEL.record(row)
    entries = channel_role_granted(channel, effect.user_id, effect.role)
    await tx.append(entries, sender=None, now_ms=effect.now_ms)
    await tx.log(
        ControlKind.ACCESS_CHANGED, guild_id=channel.guild_id, channel_id=effect.channel_id, user_id=effect.user_id
    )
    return True


# --- the log, and read positions -------------------------------------------------------------------


@performs(ReadEvents, Mode.QUERY)
async def read_events(connection: Connection, effect: ReadEvents) -> tuple[StoredEvent, ...] | None:
    limit = max(0, effect.limit)
    if effect.after is not None and effect.before is not None:
        raise LocalProtocolError("a page has one bound: after or before")
    upper = effect.before if effect.before is not None else MAX_SEQUENCE
    rows = await connection.fetch(PAGE, effect.log_id, effect.after, upper, limit)
    if not rows:
        return None
    return tuple(_event(effect.log_id, row) for row in rows if row["sequence"] is not None)


@performs(FindPosted, Mode.QUERY)
async def find_posted(connection: Connection, effect: FindPosted) -> Posted | None:
    row = await connection.fetchrow(
        """
        SELECT sequence, event_id, wire, created_at, fingerprint FROM log_events
        WHERE log_id = $1 AND sender_id = $2 AND nonce = $3
        """,
        effect.channel_id,
        effect.sender_id,
        effect.nonce,
    )
    return Posted(event=_event(effect.channel_id, row), fingerprint=row["fingerprint"]) if row is not None else None


def _event(channel_id: str, row: Row) -> StoredEvent:
    return StoredEvent(
        log_id=channel_id,
        sequence=row["sequence"],
        event_id=row["event_id"],
        wire=row["wire"],
        created_at_ms=to_millis(row["created_at"]),
    )


def _read_state(row: Row) -> ReadState:
    return ReadState(
        channel_id=str(row["channel_id"]), last_read_sequence=row["last_read"], latest_sequence=row["head_sequence"],
        unread=row["unread"],
    )  # fmt: skip


@performs(MarkRead, Mode.TRANSACTION)
async def mark_read(tx: Transaction, effect: MarkRead) -> ReadState:
    access = await require_in_channel(tx, effect.author, effect.channel_id, Permission.READ)
    reader_id, asked, now = effect.author.user_id, effect.sequence, moment(effect.now_ms)
    moved = False
    if access is not None and asked is not None and 0 < asked <= (access.channel.base_sequence or 0):
        moved = rows_changed(await tx.connection.execute(MARK_BELOW, effect.channel_id, reader_id, asked, now)) == 1
    row = await tx.connection.fetchrow(MARK_READ, [effect.channel_id], reader_id, asked, now)
    if row is None or access is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    state = _read_state(row)
    if moved or row["moved"]:
        entries = position_moved(effect.author.user_id, state, access.channel.epoch)
        await tx.append(entries, sender=effect.author.user_id, now_ms=effect.now_ms)
    if state.last_read_sequence < state.latest_sequence:
        mentions = await count_unread_mentions(tx.connection, effect.author.user_id, effect.channel_id)
        state = msgspec.structs.replace(state, mentions=mentions)
    return state


@performs(ListUnread, Mode.QUERY)
async def list_unread(connection: Connection, effect: ListUnread) -> tuple[ReadState, ...]:
    rows = await connection.fetch(
        f"""
        SELECT c.channel_id, c.created_at, l.head_sequence, c.last_read,
            greatest(l.message_count - c.own_since - CASE
                WHEN l.base_sequence > c.last_read THEN {NOT_HERE} ELSE c.last_read_messages
            END, 0) AS unread,
            CASE WHEN c.last_read < l.head_sequence THEN {UNREAD_MENTIONS} ELSE 0 END AS mentions
        FROM (
            {OWN_CHANNELS} AND ($4::timestamptz IS NULL OR (c.created_at, c.channel_id) > ($4, $5::uuid))
            ORDER BY c.created_at, c.channel_id LIMIT $3
        ) AS c JOIN logs AS l ON l.log_id = c.channel_id
        ORDER BY c.created_at, c.channel_id
        """,
        effect.user_id,
        ROLES,
        effect.limit,
        *bound(effect.after),
    )
    return tuple(
        msgspec.structs.replace(_read_state(row), created_at_ms=to_millis(row["created_at"]), mentions=row["mentions"])
        for row in rows
    )

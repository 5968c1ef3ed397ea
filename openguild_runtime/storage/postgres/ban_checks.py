"""The table of bans: checks whether users are banned, and stores bans of guilds of this server and of others."""

from __future__ import annotations

from collections.abc import Sequence

from openguild_proto.mirror_records import GuildBan
from openguild_proto.policy.bans import may_mirror_ban
from openguild_runtime.storage.postgres.values import Connection, Row, moment, to_millis

BAN = "user_id, banned_by, banned_at, username, reason"
# A lock that a ban and a join from another server take first, because the user may not have a row yet that they could lock.
ENTRY = "pg_advisory_xact_lock(hashtextextended('entry ' || {guild_id} || ' ' || {user_id}::uuid::text, 0))"
HOLD_ENTRY = f"SELECT {ENTRY.format(guild_id='$1::uuid::text', user_id='$2')}"
IS_BANNED = "SELECT EXISTS (SELECT FROM guild_bans WHERE guild_id = $1 AND user_id = $2)"
ADD = f"""
INSERT INTO guild_bans (guild_id, {BAN})
SELECT $1, {BAN} FROM unnest($2::uuid[], $3::uuid[], $4::timestamptz[], $5::text[], $6::text[]) AS given ({BAN})
ON CONFLICT DO NOTHING
"""
END = f"DELETE FROM guild_bans WHERE guild_id = $1 AND user_id = $2 RETURNING {BAN}"
COUNT = "SELECT count(*) FROM guild_bans WHERE guild_id = $1"


def ban_of(row: Row) -> GuildBan:
    """Return the ban of a row with the columns BAN."""
    return GuildBan(
        str(row["user_id"]), str(row["banned_by"]), to_millis(row["banned_at"]), row["username"], row["reason"]
    )


async def is_banned(connection: Connection, guild_id: str | None, user_id: str) -> bool:
    """Return whether the user is banned from the guild. The caller holds the user's row or HOLD_ENTRY."""
    found: bool = await connection.fetchval(IS_BANNED, guild_id, user_id)
    return found


async def add_bans(connection: Connection, guild_id: str, bans: Sequence[GuildBan]) -> None:
    """Store bans. Existing bans of the same users are kept."""
    await connection.execute(
        ADD,
        guild_id,
        [ban.user_id for ban in bans],
        [ban.banned_by for ban in bans],
        [moment(ban.banned_at_ms) for ban in bans],
        [ban.username for ban in bans],
        [ban.reason for ban in bans],
    )


async def mirror_ban(connection: Connection, guild_id: str, ban: GuildBan) -> None:
    """Store a ban from the log of a mirrored guild, unless the mirror has the maximum of bans."""
    if may_mirror_ban(await connection.fetchval(COUNT, guild_id)):
        await add_bans(connection, guild_id, [ban])


async def end_ban(connection: Connection, guild_id: str, user_id: str) -> GuildBan | None:
    """Delete a ban and return it, or None if there is none."""
    row = await connection.fetchrow(END, guild_id, user_id)
    return ban_of(row) if row is not None else None


async def all_bans(connection: Connection, guild_id: str) -> list[GuildBan]:
    """Return the bans of a guild, ordered by time and user ID."""
    rows = await connection.fetch(
        f"SELECT {BAN} FROM guild_bans WHERE guild_id = $1 ORDER BY banned_at, user_id", guild_id
    )
    return [ban_of(row) for row in rows]

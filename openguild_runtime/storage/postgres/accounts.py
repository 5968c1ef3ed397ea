"""Users and server roles in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from openguild_proto.effects.accounts import (
    DescribeUser,
    FindUser,
    FindUserByName,
    FindUsernames,
    InsertUser,
    SetDisplayName,
)
from openguild_proto.effects.logs import FindLogHead
from openguild_proto.effects.performs import performs
from openguild_proto.effects.roles import GrantServerRole, RevokeServerRole
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.policy.permissions import Permission, sufficient_guild_roles
from openguild_proto.records import ChannelMembership, ControlKind, GuildMembership, UserProfile, UserRecord
from openguild_proto.schemas.log_entries import invites_ended, profile_updated
from openguild_runtime.storage.postgres.authority import hold_users, require_author
from openguild_runtime.storage.postgres.columns import Columns
from openguild_runtime.storage.postgres.logs import find_log_head
from openguild_runtime.storage.postgres.mentions import CHANNELS_OF_USER
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, moment, rows_changed, texts, to_millis

USERS = Columns(UserRecord)
USER = f"SELECT {USERS} FROM users"
CHANNELS = f"""
SELECT c.channel_id, c.guild_id, n.name, coalesce(m.role, g.role) AS role,
    coalesce(m.joined_at, greatest(g.joined_at, c.created_at)) AS joined_at
FROM ({CHANNELS_OF_USER}) AS c
CROSS JOIN LATERAL (SELECT name FROM channels WHERE channel_id = c.channel_id LIMIT 1) AS n
LEFT JOIN guild_memberships AS g ON g.guild_id = c.guild_id AND g.user_id = $1
LEFT JOIN channel_memberships AS m ON m.channel_id = c.channel_id AND m.user_id = $1
ORDER BY joined_at, c.channel_id LIMIT $2
"""


@performs(InsertUser, Mode.CHANGE)
async def insert_user(connection: Connection, effect: InsertUser) -> bool:
    status = await connection.execute(
        """
        WITH added AS (
            INSERT INTO users (user_id, username, username_key, password_hash, created_at, updated_at)
            VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (username_key) DO NOTHING RETURNING user_id
        ) INSERT INTO logs (log_id, kind) SELECT user_id, 'user' FROM added
        """,
        effect.user_id,
        effect.username,
        effect.username_key,
        effect.password_hash,
        moment(effect.now_ms),
    )
    return rows_changed(status) == 1


@performs(SetDisplayName, Mode.TRANSACTION)
async def set_display_name(tx: Transaction, effect: SetDisplayName) -> UserRecord:
    user_id = effect.author.user_id
    await require_author(tx, effect.author)
    row = await tx.connection.fetchrow(f"{USER} WHERE user_id = $1 FOR NO KEY UPDATE", user_id)
    if row is None:
        raise Refusal(ErrorCode.UNAUTHORIZED)
    before = USERS.record(row)
    if before.display_name == effect.display_name:
        return before
    await tx.connection.execute(
        "UPDATE users SET display_name = $2, updated_at = $3 WHERE user_id = $1",
        user_id,
        effect.display_name,
        moment(effect.now_ms),
    )
    after = replace(before, display_name=effect.display_name, updated_at_ms=effect.now_ms)
    await tx.append(profile_updated(after), sender=user_id, now_ms=effect.now_ms)
    return after


@performs(FindUser, Mode.QUERY)
async def find_user(connection: Connection, effect: FindUser) -> UserRecord | None:
    row = await connection.fetchrow(f"{USER} WHERE user_id = $1", effect.user_id)
    return USERS.record(row) if row is not None else None


@performs(FindUserByName, Mode.QUERY)
async def find_user_by_name(connection: Connection, effect: FindUserByName) -> UserRecord | None:
    row = await connection.fetchrow(f"{USER} WHERE username_key = $1", effect.username_key)
    return USERS.record(row) if row is not None else None


@performs(FindUsernames, Mode.QUERY)
async def find_usernames(connection: Connection, effect: FindUsernames) -> dict[str, str]:
    rows = await connection.fetch(
        "SELECT user_id::text, username FROM users WHERE user_id = ANY ($1::uuid[])", list(effect.user_ids)
    )
    return {row["user_id"]: row["username"] for row in rows}


@performs(DescribeUser, Mode.SNAPSHOT)
async def describe_user(tx: Transaction, effect: DescribeUser) -> UserProfile | None:
    """Read the profile with several queries in one snapshot."""
    connection = tx.connection
    user = await connection.fetchrow(f"{USER} WHERE user_id = $1", effect.user_id)
    if user is None:
        return None
    roles = await connection.fetch(
        "SELECT role FROM user_roles WHERE user_id = $1 ORDER BY granted_at, role", effect.user_id
    )
    guilds = await connection.fetch(
        """
        SELECT guild_id, name, role, joined_at FROM guild_memberships JOIN guilds USING (guild_id)
        WHERE user_id = $1 ORDER BY created_at, guild_id
        """,
        effect.user_id,
    )
    channels = await connection.fetch(CHANNELS, effect.user_id, effect.limit)
    place = await find_log_head(connection, FindLogHead(log_id=effect.user_id))
    if place is None:
        return None
    return UserProfile(
        user=USERS.record(user),
        server_roles=texts(row["role"] for row in roles),
        guilds=tuple(
            GuildMembership(
                guild_id=str(row["guild_id"]),
                name=row["name"],
                role=row["role"],
                joined_at_ms=to_millis(row["joined_at"]),
            )
            for row in guilds
        ),
        channels=tuple(
            ChannelMembership(
                channel_id=str(row["channel_id"]),
                guild_id=str(row["guild_id"]),
                name=row["name"],
                role=row["role"],
                joined_at_ms=to_millis(row["joined_at"]),
            )
            for row in channels
        ),
        place=place,
    )


@performs(GrantServerRole, Mode.TRANSACTION)
async def grant_server_role(tx: Transaction, effect: GrantServerRole) -> None:
    await hold_users(tx, [effect.user_id])
    status = await tx.connection.execute(
        """
        INSERT INTO user_roles (user_id, role, granted_at) SELECT user_id, $2, $3 FROM users WHERE user_id = $1
        ON CONFLICT (user_id, role) DO UPDATE SET granted_at = user_roles.granted_at
        """,
        effect.user_id,
        effect.role,
        moment(effect.now_ms),
    )
    if rows_changed(status):
        await tx.log(ControlKind.ACCESS_CHANGED, user_id=effect.user_id)


@performs(RevokeServerRole, Mode.TRANSACTION)
async def revoke_server_role(tx: Transaction, effect: RevokeServerRole) -> bool:
    await hold_users(tx, [effect.user_id])
    status = await tx.connection.execute(
        "DELETE FROM user_roles WHERE user_id = $1 AND role = $2", effect.user_id, effect.role
    )
    if not rows_changed(status):
        return False
    rows = await tx.connection.fetch("SELECT role FROM user_roles WHERE user_id = $1", effect.user_id)
    enough = sufficient_guild_roles(texts(row["role"] for row in rows), Permission.CREATE_INVITES)
    if enough is not None:
        await end_invites_of(tx, effect.user_id, enough, effect.now_ms, sender=None)
    await tx.log(ControlKind.ACCESS_CHANGED, user_id=effect.user_id)
    return True


async def end_invites_of(
    tx: Transaction, user_id: str, enough: Sequence[str], now_ms: int, *, sender: str | None
) -> None:
    """Delete the user's invites to guilds in which they have none of the roles `enough`."""
    guilds = "SELECT guild_id FROM invites WHERE created_by = $1"
    await tx.connection.execute(
        f"SELECT FROM guilds WHERE guild_id IN ({guilds}) ORDER BY guild_id FOR NO KEY UPDATE", user_id
    )
    ended = await tx.connection.fetch(
        """
        DELETE FROM invites AS i USING guilds AS g WHERE g.guild_id = i.guild_id AND created_by = $1 AND NOT EXISTS (
            SELECT FROM guild_memberships AS m
            WHERE m.guild_id = i.guild_id AND m.user_id = $1 AND m.role = ANY ($2::text[])
        ) RETURNING i.guild_id, code, g.origin
        """,
        user_id,
        enough,
    )
    own = [row for row in ended if row["origin"] is None]  # the log of a guild that was handed over is its owner's
    for guild_id, code in sorted((str(row["guild_id"]), row["code"]) for row in own):
        await tx.append(invites_ended(guild_id, [code]), sender=sender, now_ms=now_ms)

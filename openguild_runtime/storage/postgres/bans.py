"""Bans of guilds in PostgreSQL."""

from __future__ import annotations

from openguild_proto.effects.bans import BanUser, FindBan, ListBans, UnbanUser
from openguild_proto.effects.performs import performs
from openguild_proto.mirror_records import GuildBan
from openguild_proto.policy.bans import decide_ban
from openguild_proto.policy.permissions import Permission
from openguild_proto.records import ControlKind, LimitReached
from openguild_proto.schemas.log_entries import user_banned, user_unbanned
from openguild_runtime.storage.postgres.authority import require_in_guild
from openguild_runtime.storage.postgres.ban_checks import BAN, COUNT, HOLD_ENTRY, add_bans, ban_of, end_ban
from openguild_runtime.storage.postgres.ended_mirrors import end_mirror, holds_last_member
from openguild_runtime.storage.postgres.guilds import end_lost_rights
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, bound

KNOWN = """
SELECT u.username, u.origin, m.role FROM users AS u LEFT JOIN guild_memberships AS m ON m.user_id = u.user_id AND m.guild_id = $1
WHERE u.user_id = $2
"""
LIST = f"""
SELECT {BAN} FROM guild_bans WHERE guild_id = $1
    AND ($3::timestamptz IS NULL OR (banned_at, user_id) > ($3, $4::uuid))
ORDER BY banned_at, user_id LIMIT $2
"""
LEAVE = "DELETE FROM guild_memberships WHERE guild_id = $1 AND user_id = $2"


@performs(BanUser, Mode.TRANSACTION)
async def ban_user(tx: Transaction, effect: BanUser) -> GuildBan | LimitReached:
    connection, guild_id, user_id, author = tx.connection, effect.guild_id, effect.user_id, effect.author
    await connection.execute(HOLD_ENTRY, guild_id, user_id)
    _, author_role = await require_in_guild(tx, author, guild_id, Permission.MANAGE_MEMBERS, changing=[user_id])
    user = await connection.fetchrow(KNOWN, guild_id, user_id)
    username, peer, held = (user["username"], user["origin"], user["role"]) if user is not None else (None, None, None)
    ban = GuildBan(user_id, author.user_id, effect.now_ms, username, effect.reason)
    decided = decide_ban(
        ban,
        await find_ban(connection, FindBan(guild_id=guild_id, user_id=user_id)),
        author_role=author_role,
        held=held,
        bans=await connection.fetchval(COUNT, guild_id),
        limit=effect.limit,
    )
    if decided is not ban:
        return decided
    await connection.execute(LEAVE, guild_id, user_id)
    ended = await end_lost_rights(tx, guild_id, user_id, held, None)
    await add_bans(connection, guild_id, [ban])
    ends = held is not None and await holds_last_member(tx, guild_id, peer)
    entries = user_banned(guild_id, ban, was_member=held is not None, ended_invites=ended)
    await tx.append(entries, sender=author.user_id, now_ms=effect.now_ms)
    if ends:
        await end_mirror(tx, guild_id, peer, effect.now_ms)
    kind = ControlKind.MEMBER_REMOVED if held is not None else ControlKind.ACCESS_CHANGED
    await tx.log(kind, guild_id=guild_id, user_id=user_id)
    return ban


@performs(UnbanUser, Mode.TRANSACTION)
async def unban_user(tx: Transaction, effect: UnbanUser) -> bool:
    await require_in_guild(tx, effect.author, effect.guild_id, Permission.MANAGE_MEMBERS)
    ban = await end_ban(tx.connection, effect.guild_id, effect.user_id)
    if ban is None:
        return False
    entries = user_unbanned(effect.guild_id, ban, effect.reason)
    await tx.append(entries, sender=effect.author.user_id, now_ms=effect.now_ms)
    return True


@performs(FindBan, Mode.QUERY)
async def find_ban(connection: Connection, effect: FindBan) -> GuildBan | None:
    row = await connection.fetchrow(
        f"SELECT {BAN} FROM guild_bans WHERE guild_id = $1 AND user_id = $2", effect.guild_id, effect.user_id
    )
    return ban_of(row) if row is not None else None


@performs(ListBans, Mode.QUERY)
async def list_bans(connection: Connection, effect: ListBans) -> tuple[GuildBan, ...]:
    rows = await connection.fetch(LIST, effect.guild_id, effect.limit, *bound(effect.after))
    return tuple(ban_of(row) for row in rows)

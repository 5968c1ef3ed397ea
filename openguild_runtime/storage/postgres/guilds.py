"""Guilds, members and guild roles in PostgreSQL."""

from __future__ import annotations

from openguild_proto.effects.guilds import (
    DeleteGuild,
    FindMember,
    InsertGuild,
    ListGuilds,
    ListMembers,
    RemoveMember,
    RenameGuild,
    SetMemberRole,
)
from openguild_proto.effects.performs import performs
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.errors import LocalProtocolError
from openguild_proto.policy.count_limits import check_count
from openguild_proto.policy.guilds import decide_guild
from openguild_proto.policy.members import OWNER, decide_ended, decide_grant, decide_removal, decide_role_change
from openguild_proto.policy.permissions import Permission, require_owned
from openguild_proto.records import ControlKind, GuildRecord, LimitReached, MemberChange, MemberRecord
from openguild_proto.schemas.log_entries import guild_created, guild_renamed, member_gone, member_joined, role_set
from openguild_proto.schemas.payloads import channel_ids_body
from openguild_runtime.storage.postgres.access import GUILD
from openguild_runtime.storage.postgres.authority import hold_guild, hold_users, require_author, require_in_guild
from openguild_runtime.storage.postgres.ban_checks import is_banned
from openguild_runtime.storage.postgres.columns import Columns
from openguild_runtime.storage.postgres.deleted_logs import HOLD_LOGS, end_logs
from openguild_runtime.storage.postgres.ended_mirrors import end_mirror, end_mirrors, holds_last_member
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.repeats import find_repeat, keep_answer
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, bound, moment

MEMBERS = Columns(MemberRecord)
# Time-outs are looked up one by one: a join would read all of the guild's for each member of a page. Owners cannot be timed
# out.
MEMBER = f"""
SELECT {MEMBERS} FROM guild_memberships AS m JOIN users USING (user_id) LEFT JOIN LATERAL (
    SELECT ends_at AS timed_out_until FROM guild_timeouts AS t
    WHERE t.guild_id = m.guild_id AND t.user_id = m.user_id AND t.ends_at > now() AND m.role <> '{OWNER}' LIMIT 1
) AS timed_out ON true
"""
# The role is a literal, because PostgreSQL uses the partial index of owners only then.
MEMBERSHIP_COUNTS = f"""
SELECT (SELECT role FROM guild_memberships WHERE guild_id = $1 AND user_id = $2) AS role,
    (SELECT count(*) FROM guild_memberships WHERE guild_id = $1 AND role = '{OWNER}') AS owners,
    (SELECT count(*) FROM guild_memberships WHERE user_id = $2 AND role = '{OWNER}') AS owned,
    (SELECT origin FROM users WHERE user_id = $2) AS origin
"""


@performs(InsertGuild, Mode.TRANSACTION)
async def insert_guild(tx: Transaction, effect: InsertGuild) -> GuildRecord | LimitReached:
    now, owner_id = moment(effect.now_ms), effect.author.user_id
    # lock the user, so that the count of guilds stays valid; before the key, as accepting an invite does
    await tx.connection.execute("SELECT FROM users WHERE user_id = $1 FOR NO KEY UPDATE", owner_id)
    await require_author(tx, effect.author)
    repeated = await find_repeat(tx, effect.author, effect.once, GuildRecord, effect.now_ms)
    if repeated is not None:
        return repeated
    full = check_count(await _guilds_owned(tx, owner_id), effect.limit)
    if full is not None:
        return full
    await tx.connection.execute(
        """
        WITH log AS (INSERT INTO logs (log_id, kind) VALUES ($1, 'guild'))
        INSERT INTO guilds (guild_id, name, created_at) VALUES ($1, $2, $3)
        """,
        effect.guild_id,
        effect.name,
        now,
    )
    await tx.connection.execute(
        "INSERT INTO guild_memberships (guild_id, user_id, role, joined_at) VALUES ($1, $2, $3, $4)",
        effect.guild_id,
        owner_id,
        OWNER,
        now,
    )
    guild = GuildRecord(guild_id=effect.guild_id, name=effect.name, created_at_ms=effect.now_ms)
    owner = await known_member(tx, effect.guild_id, owner_id)
    await keep_answer(tx, effect.author, effect.once, guild, effect.now_ms)
    await tx.append(guild_created(guild, owner), sender=owner_id, now_ms=effect.now_ms)
    await tx.log(ControlKind.MEMBER_JOINED, guild_id=effect.guild_id, user_id=owner_id)
    return guild


async def _guilds_owned(tx: Transaction, user_id: str) -> int:
    """Return how many guilds the user owns. The caller has locked the user's row."""
    owned: int = await tx.connection.fetchval(
        "SELECT count(*) FROM guild_memberships WHERE user_id = $1 AND role = $2", user_id, OWNER
    )
    return owned


# Looked up one by one: because of the order, PostgreSQL would otherwise read all guilds of the server.
GUILDS_OF_USER = f"""
(SELECT {GUILD.of("g")} FROM guild_memberships AS m, LATERAL (SELECT {GUILD} FROM guilds WHERE guild_id = m.guild_id LIMIT 1) AS g
WHERE m.user_id = $4)
"""
LIST_GUILDS = f"""
SELECT {GUILD} FROM {{source}} AS g WHERE ($2::timestamptz IS NULL OR (created_at, guild_id) > ($2, $3::uuid))
ORDER BY created_at, guild_id LIMIT $1
"""
LIST_ALL, LIST_OWN = (LIST_GUILDS.format(source=source) for source in ("guilds", GUILDS_OF_USER))


@performs(ListGuilds, Mode.QUERY)
async def list_guilds(connection: Connection, effect: ListGuilds) -> tuple[GuildRecord, ...]:
    if effect.user_id is None:
        rows = await connection.fetch(LIST_ALL, effect.limit, *bound(effect.after))
    else:
        rows = await connection.fetch(LIST_OWN, effect.limit, *bound(effect.after), effect.user_id)
    return tuple(GUILD.record(row) for row in rows)


@performs(RenameGuild, Mode.TRANSACTION)
async def rename_guild(tx: Transaction, effect: RenameGuild) -> GuildRecord:
    access, _ = await require_in_guild(tx, effect.author, effect.guild_id, Permission.RENAME)
    renamed = decide_guild(access.guild, name=effect.name)
    if renamed is None:
        return access.guild
    await tx.connection.execute("UPDATE guilds SET name = $2 WHERE guild_id = $1", effect.guild_id, effect.name)
    await tx.append(guild_renamed(renamed, effect.reason), sender=effect.author.user_id, now_ms=effect.now_ms)
    return renamed


@performs(DeleteGuild, Mode.TRANSACTION)
async def delete_guild(tx: Transaction, effect: DeleteGuild) -> None:
    await require_in_guild(tx, effect.author, effect.guild_id, Permission.DELETE)
    await tx.connection.execute("SELECT FROM guilds WHERE guild_id = $1 FOR UPDATE", effect.guild_id)
    rows = await tx.connection.fetch(
        "SELECT channel_id FROM channels WHERE guild_id = $1 ORDER BY channel_id", effect.guild_id
    )
    channel_ids = [str(row["channel_id"]) for row in rows]
    log_ids = [effect.guild_id, *channel_ids]
    await tx.connection.execute(HOLD_LOGS, log_ids)
    await tx.connection.execute("DELETE FROM guilds WHERE guild_id = $1", effect.guild_id)
    await end_mirrors(tx, effect.guild_id)
    await end_logs(tx, log_ids)
    body = channel_ids_body(channel_ids)
    await tx.log(ControlKind.GUILD_DELETED, guild_id=effect.guild_id, body=body)


# --- members -------------------------------------------------------------------------------------


@performs(ListMembers, Mode.QUERY)
async def list_members(connection: Connection, effect: ListMembers) -> tuple[MemberRecord, ...]:
    rows = await connection.fetch(
        f"""
        {MEMBER} WHERE guild_id = $1
          AND ($3::timestamptz IS NULL OR (joined_at, user_id) > ($3, $4::uuid))
        ORDER BY joined_at, user_id LIMIT $2
        """,
        effect.guild_id,
        effect.limit,
        *bound(effect.after),
    )
    return tuple(MEMBERS.record(row) for row in rows)


@performs(FindMember, Mode.QUERY)
async def find_member(connection: Connection, effect: FindMember) -> MemberRecord | None:
    row = await connection.fetchrow(f"{MEMBER} WHERE guild_id = $1 AND user_id = $2", effect.guild_id, effect.user_id)
    return MEMBERS.record(row) if row is not None else None


async def known_member(tx: Transaction, guild_id: str, user_id: str) -> MemberRecord:
    """Return a membership that this transaction has written or locked. Raises LocalProtocolError if there is none."""
    member = await find_member(tx.connection, FindMember(guild_id=guild_id, user_id=user_id))
    if member is None:
        raise LocalProtocolError("a member was looked for before they joined")
    return member


@performs(SetMemberRole, Mode.TRANSACTION)
async def set_member_role(tx: Transaction, effect: SetMemberRole) -> MemberChange:
    user_id, author = effect.user_id, effect.author
    _, own_role = await require_in_guild(
        tx, author, effect.guild_id, Permission.MANAGE_MEMBERS, changing=[effect.user_id]
    )
    held, owners, owned, _ = await _membership_counts(tx, effect.guild_id, user_id)
    change = decide_role_change(
        author_role=own_role,
        held=held,
        role=effect.role,
        own=user_id == author.user_id,
        owners=owners,
        owned=owned,
        limit=effect.limit,
    )
    if change is not MemberChange.DONE:
        return change
    await _set_role(tx, effect.guild_id, user_id, effect.role)
    ended = await end_lost_rights(tx, effect.guild_id, user_id, held, effect.role)
    entries = role_set(effect.guild_id, user_id, effect.role, ended_invites=ended, reason=effect.reason)
    await tx.append(entries, sender=author.user_id, now_ms=effect.now_ms)
    await tx.log(ControlKind.MEMBER_CHANGED, guild_id=effect.guild_id, user_id=user_id)
    return MemberChange.DONE


@performs(RemoveMember, Mode.TRANSACTION)
async def remove_member(tx: Transaction, effect: RemoveMember) -> MemberChange:
    user_id, author = effect.user_id, effect.author
    author_role = None
    if user_id == author.user_id:
        await require_author(tx, author, changing=[user_id])
        await hold_guild(tx, effect.guild_id)
        require_owned(await tx.connection.fetchval("SELECT origin FROM guilds WHERE guild_id = $1", effect.guild_id))
    else:
        _, author_role = await require_in_guild(
            tx, author, effect.guild_id, Permission.MANAGE_MEMBERS, changing=[user_id]
        )
    held, owners, _, peer = await _membership_counts(tx, effect.guild_id, user_id)
    change = decide_removal(author_role=author_role, held=held, owners=owners)
    if change is not MemberChange.DONE:
        return change
    await tx.connection.execute(
        "DELETE FROM guild_memberships WHERE guild_id = $1 AND user_id = $2", effect.guild_id, user_id
    )
    ended = await end_lost_rights(tx, effect.guild_id, user_id, held, None)
    removed = user_id != author.user_id
    entries = member_gone(effect.guild_id, user_id, removed=removed, ended_invites=ended, reason=effect.reason)
    ends = await holds_last_member(tx, effect.guild_id, peer)
    await tx.append(entries, sender=author.user_id, now_ms=effect.now_ms)
    if ends:
        await end_mirror(tx, effect.guild_id, peer, effect.now_ms)
    await tx.log(ControlKind.MEMBER_REMOVED, guild_id=effect.guild_id, user_id=user_id)
    return MemberChange.DONE


async def _membership_counts(tx: Transaction, guild_id: str, user_id: str) -> tuple[str | None, int, int, str | None]:
    """Return the user's role in the guild, the guild's owners, the guilds that the user owns, and the user's home server.

    The caller has locked both.
    """
    row = await tx.connection.fetchrow(MEMBERSHIP_COUNTS, guild_id, user_id)
    return (row["role"], row["owners"], row["owned"], row["origin"]) if row is not None else (None, 0, 0, None)


async def _set_role(tx: Transaction, guild_id: str, user_id: str, role: str) -> None:
    await tx.connection.execute(
        "UPDATE guild_memberships SET role = $3 WHERE guild_id = $1 AND user_id = $2", guild_id, user_id, role
    )


async def end_lost_rights(
    tx: Transaction, guild_id: str, user_id: str, held: str | None, role: str | None
) -> list[str]:
    """Delete the channel roles and invites that end with a change of role, and return the codes of the invites."""
    ended = decide_ended(held, role)
    if ended.channel_roles != ():
        await tx.connection.execute(
            """
            DELETE FROM channel_memberships AS m USING channels AS c
            WHERE m.channel_id = c.channel_id AND c.guild_id = $1 AND m.user_id = $2
              AND ($3::text[] IS NULL OR m.role = ANY ($3))
            """,
            guild_id,
            user_id,
            ended.channel_roles,
        )
    if not ended.invites:
        return []
    rows = await tx.connection.fetch(
        "DELETE FROM invites WHERE guild_id = $1 AND created_by = $2 RETURNING code", guild_id, user_id
    )
    return [row["code"] for row in rows]


@performs(GrantGuildRole, Mode.TRANSACTION)
async def grant_guild_role(tx: Transaction, effect: GrantGuildRole) -> MemberChange | None:
    await hold_users(tx, [effect.user_id])
    await hold_guild(tx, effect.guild_id)
    held, owners, _, home = await _membership_counts(tx, effect.guild_id, effect.user_id)
    if not await tx.connection.fetchval("SELECT origin IS NULL FROM guilds WHERE guild_id = $1", effect.guild_id):
        return None
    if home is not None and held is None:
        return MemberChange.NOT_MEMBER
    banned = await is_banned(tx.connection, effect.guild_id, effect.user_id)
    change = decide_grant(held=held, role=effect.role, owners=owners, is_banned=banned)
    if change is not MemberChange.DONE:
        return change
    ended = await end_lost_rights(tx, effect.guild_id, effect.user_id, held, effect.role)
    if held is not None:
        kind = ControlKind.MEMBER_CHANGED
        await _set_role(tx, effect.guild_id, effect.user_id, effect.role)
        entries = role_set(effect.guild_id, effect.user_id, effect.role, ended_invites=ended)
    else:
        kind = ControlKind.MEMBER_JOINED
        row = await tx.connection.fetchrow(
            f"""
            WITH joined AS (
                INSERT INTO guild_memberships (guild_id, user_id, role, joined_at)
                SELECT guild_id, user_id, $3, $4 FROM guilds, users WHERE guild_id = $1 AND user_id = $2
                RETURNING guild_id
            ) SELECT {GUILD} FROM guilds JOIN joined USING (guild_id)
            """,
            effect.guild_id,
            effect.user_id,
            effect.role,
            moment(effect.now_ms),
        )
        if row is None:
            return None
        entries = member_joined(GUILD.record(row), await known_member(tx, effect.guild_id, effect.user_id))
    await tx.append(entries, sender=None, now_ms=effect.now_ms)
    await tx.log(kind, guild_id=effect.guild_id, user_id=effect.user_id)
    return MemberChange.DONE

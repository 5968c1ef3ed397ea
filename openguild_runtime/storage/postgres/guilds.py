"""Guilds, members and guild roles in PostgreSQL."""

from __future__ import annotations

from openguild_proto.effects import (
    DeleteGuild,
    FindGuildAccess,
    FindMember,
    GrantGuildRole,
    InsertGuild,
    ListGuilds,
    ListMembers,
    RemoveMember,
    RenameGuild,
    SetMemberRole,
    StorageUnavailable,
)
from openguild_proto.policy.permissions import Permission, allows
from openguild_proto.records import ControlKind, GuildAccess, GuildRecord, LimitReached, MemberChange, MemberRecord
from openguild_runtime.storage.base import OWNER, Visible, channel_ids_body
from openguild_runtime.storage.postgres.accounts import SERVER_ROLES
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, Row, bound, moment, rows_changed, texts, to_millis

MEMBER = "SELECT guild_id, user_id, username, role, joined_at FROM guild_memberships JOIN users USING (user_id)"


def _guild(row: Row) -> GuildRecord:
    return GuildRecord(guild_id=str(row["guild_id"]), name=row["name"], created_at_ms=to_millis(row["created_at"]))


def member_record(row: Row) -> MemberRecord:
    """A row of `MEMBER`."""
    return MemberRecord(
        guild_id=str(row["guild_id"]),
        user_id=str(row["user_id"]),
        username=row["username"],
        role=row["role"],
        joined_at_ms=to_millis(row["joined_at"]),
    )


async def insert_guild(tx: Transaction, effect: InsertGuild) -> GuildRecord | LimitReached:
    now = moment(effect.now_ms)
    if await _guilds_owned(tx, effect.owner_id) >= effect.limit:
        return LimitReached(effect.limit)
    await tx.connection.execute(
        "INSERT INTO guilds (guild_id, name, created_at) VALUES ($1, $2, $3)", effect.guild_id, effect.name, now
    )
    await tx.connection.execute(
        "INSERT INTO guild_memberships (guild_id, user_id, role, joined_at) VALUES ($1, $2, $3, $4)",
        effect.guild_id,
        effect.owner_id,
        OWNER,
        now,
    )
    await tx.log(ControlKind.MEMBER_JOINED, guild_id=effect.guild_id, user_id=effect.owner_id)
    return GuildRecord(guild_id=effect.guild_id, name=effect.name, created_at_ms=effect.now_ms)


async def _guilds_owned(tx: Transaction, user_id: str) -> int:
    """How many; until the transaction ends there will be no more, because the user's row is locked."""
    await tx.connection.execute("SELECT FROM users WHERE user_id = $1 FOR NO KEY UPDATE", user_id)
    owned: int = await tx.connection.fetchval(
        "SELECT count(*) FROM guild_memberships WHERE user_id = $1 AND role = $2", user_id, OWNER
    )
    return owned


async def list_guilds(connection: Connection, effect: ListGuilds) -> tuple[GuildRecord, ...]:
    rows = await connection.fetch(
        """
        SELECT guild_id, name, created_at FROM guilds AS g
        WHERE ($1::uuid IS NULL OR EXISTS (SELECT FROM guild_memberships AS m WHERE m.guild_id = g.guild_id AND m.user_id = $1))
          AND ($3::timestamptz IS NULL OR (created_at, guild_id) > ($3, $4::uuid))
        ORDER BY created_at, guild_id LIMIT $2
        """,
        effect.user_id,
        effect.limit,
        *bound(effect.after),
    )
    return tuple(_guild(row) for row in rows)


async def find_guild_access(connection: Connection, effect: FindGuildAccess) -> GuildAccess | None:
    row = await connection.fetchrow(
        f"""
        SELECT g.guild_id, g.name, g.created_at, m.role, {SERVER_ROLES} AS server_roles
        FROM guilds AS g LEFT JOIN guild_memberships AS m ON m.guild_id = g.guild_id AND m.user_id = $2
        WHERE g.guild_id = $1
        """,
        effect.guild_id,
        effect.user_id,
    )
    if row is None:
        return None
    return GuildAccess(guild=_guild(row), role=row["role"], server_roles=texts(row["server_roles"]))


async def rename_guild(connection: Connection, effect: RenameGuild) -> GuildRecord | None:
    row = await connection.fetchrow(
        "UPDATE guilds SET name = $2 WHERE guild_id = $1 RETURNING guild_id, name, created_at",
        effect.guild_id,
        effect.name,
    )
    return _guild(row) if row is not None else None


async def delete_guild(tx: Transaction, effect: DeleteGuild) -> bool:
    found = await tx.connection.fetchval("SELECT 1 FROM guilds WHERE guild_id = $1 FOR UPDATE", effect.guild_id)
    if found is None:
        return False
    # in id order, as appends take them; the cascade would take them in any order
    channels = await tx.connection.fetch(
        "SELECT channel_id FROM channels WHERE guild_id = $1 ORDER BY channel_id FOR UPDATE", effect.guild_id
    )
    await tx.connection.execute("DELETE FROM guilds WHERE guild_id = $1", effect.guild_id)
    body = channel_ids_body([str(row["channel_id"]) for row in channels])
    await tx.log(ControlKind.GUILD_DELETED, guild_id=effect.guild_id, body=body)
    return True


async def visible(connection: Connection, user_id: str) -> Visible:
    row = await connection.fetchrow(
        """
        WITH mine AS (SELECT guild_id FROM guild_memberships WHERE user_id = $1)
        SELECT ARRAY(SELECT guild_id FROM mine ORDER BY guild_id) AS guilds, ARRAY(
            SELECT channel_id FROM channels WHERE guild_id IN (SELECT guild_id FROM mine)
            OR channel_id IN (SELECT channel_id FROM channel_memberships WHERE user_id = $1)
            ORDER BY created_at, channel_id
        ) AS channels
        """,
        user_id,
    )
    if row is None:
        raise StorageUnavailable
    return Visible(guild_ids=texts(row["guilds"]), channel_ids=texts(row["channels"]))


# --- members -------------------------------------------------------------------------------------


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
    return tuple(member_record(row) for row in rows)


async def find_member(connection: Connection, effect: FindMember) -> MemberRecord | None:
    row = await connection.fetchrow(f"{MEMBER} WHERE guild_id = $1 AND user_id = $2", effect.guild_id, effect.user_id)
    return member_record(row) if row is not None else None


async def set_member_role(tx: Transaction, effect: SetMemberRole) -> MemberChange:
    leaves = effect.role != OWNER
    owned = 0 if leaves else await _guilds_owned(tx, effect.user_id)
    verdict = await _may_change(tx, effect.guild_id, effect.user_id, effect.expected_role, leaves=leaves)
    if verdict is MemberChange.DONE and not leaves and owned >= effect.limit:
        return MemberChange.LIMIT_REACHED
    if verdict is MemberChange.DONE:
        await tx.connection.execute(
            "UPDATE guild_memberships SET role = $3 WHERE guild_id = $1 AND user_id = $2",
            effect.guild_id,
            effect.user_id,
            effect.role,
        )
        await _end_invites(tx, effect.guild_id, effect.user_id, effect.role)
        await tx.log(ControlKind.MEMBER_CHANGED, guild_id=effect.guild_id, user_id=effect.user_id)
    return verdict


async def remove_member(tx: Transaction, effect: RemoveMember) -> MemberChange:
    verdict = await _may_change(tx, effect.guild_id, effect.user_id, effect.expected_role, leaves=True)
    if verdict is MemberChange.DONE:
        await tx.connection.execute(
            "DELETE FROM guild_memberships WHERE guild_id = $1 AND user_id = $2", effect.guild_id, effect.user_id
        )
        await tx.connection.execute(
            """
            DELETE FROM channel_memberships AS m USING channels AS c
            WHERE m.channel_id = c.channel_id AND c.guild_id = $1 AND m.user_id = $2
            """,
            effect.guild_id,
            effect.user_id,
        )
        await _end_invites(tx, effect.guild_id, effect.user_id, None)
        await tx.log(ControlKind.MEMBER_REMOVED, guild_id=effect.guild_id, user_id=effect.user_id)
    return verdict


async def _end_invites(tx: Transaction, guild_id: str, user_id: str, role: str | None) -> None:
    """Unless `role`, the creator's from now on, may still create them: an invite is worth what its creator may do."""
    if not allows(role, Permission.CREATE_INVITES):
        await tx.connection.execute("DELETE FROM invites WHERE guild_id = $1 AND created_by = $2", guild_id, user_id)


async def _may_change(
    tx: Transaction, guild_id: str, user_id: str, expected_role: str, *, leaves: bool
) -> MemberChange:
    """`leaves`: the member will not be an owner afterwards. The guild's row makes changes of one guild take turns."""
    await tx.connection.execute("SELECT FROM guilds WHERE guild_id = $1 FOR NO KEY UPDATE", guild_id)
    role = await tx.connection.fetchval(
        "SELECT role FROM guild_memberships WHERE guild_id = $1 AND user_id = $2", guild_id, user_id
    )
    if role is None:
        return MemberChange.NOT_MEMBER
    if role != expected_role:
        return MemberChange.CONFLICT
    if role == OWNER and leaves and await _owners(tx, guild_id) == 1:
        return MemberChange.LAST_OWNER
    return MemberChange.DONE


async def _owners(tx: Transaction, guild_id: str) -> int:
    owners: int = await tx.connection.fetchval(
        "SELECT count(*) FROM guild_memberships WHERE guild_id = $1 AND role = $2", guild_id, OWNER
    )
    return owners


async def grant_guild_role(tx: Transaction, effect: GrantGuildRole) -> MemberChange | None:
    await tx.connection.execute("SELECT FROM guilds WHERE guild_id = $1 FOR NO KEY UPDATE", effect.guild_id)
    held = await tx.connection.fetchval(
        "SELECT role FROM guild_memberships WHERE guild_id = $1 AND user_id = $2", effect.guild_id, effect.user_id
    )
    if held == OWNER and effect.role != OWNER and await _owners(tx, effect.guild_id) == 1:
        return MemberChange.LAST_OWNER
    status = await tx.connection.execute(
        "UPDATE guild_memberships SET role = $3 WHERE guild_id = $1 AND user_id = $2",
        effect.guild_id,
        effect.user_id,
        effect.role,
    )
    kind = ControlKind.MEMBER_CHANGED
    if not rows_changed(status):
        kind = ControlKind.MEMBER_JOINED
        status = await tx.connection.execute(
            """
            INSERT INTO guild_memberships (guild_id, user_id, role, joined_at)
            SELECT guild_id, user_id, $3, $4 FROM guilds, users WHERE guild_id = $1 AND user_id = $2
            """,
            effect.guild_id,
            effect.user_id,
            effect.role,
            moment(effect.now_ms),
        )
        if not rows_changed(status):
            return None
    await _end_invites(tx, effect.guild_id, effect.user_id, effect.role)
    await tx.log(kind, guild_id=effect.guild_id, user_id=effect.user_id)
    return MemberChange.DONE

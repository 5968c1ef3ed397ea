"""Invites in PostgreSQL."""

from __future__ import annotations

from openguild_proto.effects.guilds import (
    AcceptInvite,
    DeleteInvite,
    FindGuildAccess,
    FindInvite,
    FindMember,
    InsertInvite,
    ListInvites,
)
from openguild_proto.effects.performs import performs
from openguild_proto.errors import ErrorCode, LocalProtocolError, Refusal
from openguild_proto.policy.invites import Joining, decide_joining, decide_new_invite
from openguild_proto.policy.permissions import Permission, needed_to_delete, require_guild, require_owned
from openguild_proto.records import ControlKind, InviteRecord, LimitReached, MemberRecord
from openguild_proto.schemas.log_entries import invite_created, invite_deleted, member_joined
from openguild_runtime.storage.postgres.access import find_guild_access
from openguild_runtime.storage.postgres.authority import hold_guild, require_author, require_in_guild
from openguild_runtime.storage.postgres.ban_checks import is_banned
from openguild_runtime.storage.postgres.guilds import MEMBER, MEMBERS, find_member, known_member
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.repeats import find_repeat, keep_answer
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import (
    Connection,
    Row,
    bound,
    moment,
    moment_or_none,
    rows_changed,
    to_millis,
    to_millis_or_none,
)

INVITE = "i.code, i.guild_id, i.created_by, i.max_uses, i.uses, i.expires_at, i.created_at, g.name, g.origin"
HOLD_GUILD = "SELECT FROM guilds WHERE guild_id = (SELECT guild_id FROM invites WHERE code = $1) FOR KEY SHARE"


@performs(InsertInvite, Mode.TRANSACTION)
async def insert_invite(tx: Transaction, effect: InsertInvite) -> InviteRecord | LimitReached:
    connection = tx.connection
    access, _ = await require_in_guild(tx, effect.author, effect.guild_id, Permission.CREATE_INVITES)
    repeated = await find_repeat(tx, effect.author, effect.once, InviteRecord, effect.now_ms)
    if repeated is not None:
        return repeated
    invites = await list_invites(connection, ListInvites(guild_id=effect.guild_id))
    deleted = decide_new_invite(invites, now_ms=effect.now_ms, limit=effect.limit)
    if isinstance(deleted, LimitReached):
        return deleted
    if deleted:
        await connection.execute("DELETE FROM invites WHERE code = ANY ($1::text[])", deleted)
    await connection.execute(
        """
        INSERT INTO invites (code, guild_id, created_by, max_uses, expires_at, created_at)
        VALUES ($1, $2, $3, $4, $5, $6)
        """,
        effect.code,
        effect.guild_id,
        effect.author.user_id,
        effect.max_uses,
        moment_or_none(effect.expires_at_ms),
        moment(effect.now_ms),
    )
    invite = InviteRecord(
        code=effect.code,
        guild_id=effect.guild_id,
        guild_name=access.guild.name,
        max_uses=effect.max_uses,
        uses=0,
        expires_at_ms=effect.expires_at_ms,
        created_by=effect.author.user_id,
        created_at_ms=effect.now_ms,
    )
    await keep_answer(tx, effect.author, effect.once, invite, effect.now_ms)
    await tx.append(invite_created(invite), sender=invite.created_by, now_ms=effect.now_ms)
    return invite


@performs(ListInvites, Mode.QUERY)
async def list_invites(connection: Connection, effect: ListInvites) -> tuple[InviteRecord, ...]:
    """List invites. Codes sort by bytes, independent of the collation of the database."""
    rows = await connection.fetch(
        f"""
        SELECT {INVITE}, 0 AS members FROM invites AS i JOIN guilds AS g USING (guild_id) WHERE i.guild_id = $1
          AND ($3::timestamptz IS NULL OR (i.created_at, i.code COLLATE "C") > ($3, $4::text))
        ORDER BY i.created_at, i.code COLLATE "C" LIMIT $2
        """,
        effect.guild_id,
        effect.limit,
        *bound(effect.after),
    )
    return tuple(_invite(row) for row in rows)


@performs(FindInvite, Mode.QUERY)
async def find_invite(connection: Connection, effect: FindInvite) -> InviteRecord | None:
    row = await connection.fetchrow(
        f"""
        SELECT {INVITE}, (
          SELECT count(*) FROM (SELECT FROM guild_memberships AS m WHERE m.guild_id = i.guild_id LIMIT $2) AS counted
        ) AS members
        FROM invites AS i JOIN guilds AS g USING (guild_id) WHERE code = $1
        """,
        effect.code,
        effect.counted,
    )
    return _invite(row) if row is not None else None


def _invite(row: Row) -> InviteRecord:
    return InviteRecord(
        code=row["code"],
        guild_id=str(row["guild_id"]),
        guild_name=row["name"],
        max_uses=row["max_uses"],
        uses=row["uses"],
        expires_at_ms=to_millis_or_none(row["expires_at"]),
        created_by=str(row["created_by"]),
        created_at_ms=to_millis(row["created_at"]),
        member_count=row["members"],
        origin=row["origin"],
    )


@performs(AcceptInvite, Mode.TRANSACTION)
async def accept_invite(tx: Transaction, effect: AcceptInvite) -> MemberRecord | LimitReached | None:
    connection, user_id = tx.connection, effect.author.user_id
    # lock the user, so that the count of guilds stays valid; before the guild, as a promotion does
    await connection.execute("SELECT FROM users WHERE user_id = $1 FOR NO KEY UPDATE", user_id)
    await require_author(tx, effect.author)
    repeated = await find_repeat(tx, effect.author, effect.once, MemberRecord, effect.now_ms)
    if repeated is not None:
        return repeated
    # lock the guild before its invite, as a deletion of the guild does
    await connection.execute(HOLD_GUILD, effect.code)
    row = await connection.fetchrow(
        f"SELECT {INVITE}, 0 AS members FROM invites AS i JOIN guilds AS g USING (guild_id) WHERE code = $1 "
        "FOR NO KEY UPDATE OF i",
        effect.code,
    )
    invite = _invite(row) if row is not None else None
    guild_id = invite.guild_id if invite is not None else None
    already = await connection.fetchrow(f"{MEMBER} WHERE guild_id = $1 AND user_id = $2", guild_id, user_id)
    joining = decide_joining(
        invite,
        is_member=already is not None,
        is_banned=await is_banned(connection, guild_id, user_id),
        joined=await connection.fetchval("SELECT count(*) FROM guild_memberships WHERE user_id = $1", user_id),
        now_ms=effect.now_ms,
        limit=effect.limit,
    )
    if joining is Joining.LIMIT_REACHED:
        return LimitReached(effect.limit)
    if guild_id is None or joining in {Joining.MEMBER_ALREADY, Joining.INVALID}:
        if already is None:
            return None
        member = MEMBERS.record(already)
        await keep_answer(tx, effect.author, effect.once, member, effect.now_ms)
        return member
    require_owned(invite.origin if invite is not None else None)
    if joining is Joining.BANNED:
        raise Refusal(ErrorCode.BANNED)
    status = await connection.execute(
        """
        INSERT INTO guild_memberships (guild_id, user_id, role, joined_at)
        SELECT $1, user_id, $3, $4 FROM users WHERE user_id = $2 ON CONFLICT (guild_id, user_id) DO NOTHING
        """,
        guild_id,
        user_id,
        effect.role,
        moment(effect.now_ms),
    )
    if rows_changed(status):  # not if the user joined by another invite meanwhile
        await connection.execute("UPDATE invites SET uses = uses + 1 WHERE code = $1", effect.code)
        await _mark_all_read(tx, guild_id, effect)
        member = await known_member(tx, guild_id, user_id)
        access = await find_guild_access(connection, FindGuildAccess(guild_id=guild_id, user_id=user_id))
        if access is None:
            raise LocalProtocolError("a guild is gone that this transaction holds")
        entries = member_joined(access.guild, member, invite_code=effect.code)
        await keep_answer(tx, effect.author, effect.once, member, effect.now_ms)
        await tx.append(entries, sender=user_id, now_ms=effect.now_ms)
        await tx.log(ControlKind.MEMBER_JOINED, guild_id=guild_id, user_id=user_id)
        return member
    return await find_member(connection, FindMember(guild_id=guild_id, user_id=user_id))


async def _mark_all_read(tx: Transaction, guild_id: str, effect: AcceptInvite) -> None:
    await tx.connection.execute(
        """
        SELECT FROM mark_read_v1(ARRAY(
            SELECT channel_id FROM channels JOIN logs ON log_id = channel_id WHERE guild_id = $1 AND head_sequence > 0
        ), $2, NULL, $3)
        """,
        guild_id,
        effect.author.user_id,
        moment(effect.now_ms),
    )


@performs(DeleteInvite, Mode.TRANSACTION)
async def delete_invite(tx: Transaction, effect: DeleteInvite) -> None:
    await require_author(tx, effect.author)
    invite = await find_invite(tx.connection, FindInvite(code=effect.code))
    if invite is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    user_id = effect.author.user_id
    await hold_guild(tx, invite.guild_id)
    access = await find_guild_access(tx.connection, FindGuildAccess(guild_id=invite.guild_id, user_id=user_id))
    require_guild(access, needed_to_delete(invite.created_by, user_id))
    require_owned(access.guild.origin if access is not None else None)
    if not rows_changed(await tx.connection.execute("DELETE FROM invites WHERE code = $1", effect.code)):
        raise Refusal(ErrorCode.NOT_FOUND)
    await tx.append(invite_deleted(invite, effect.reason), sender=user_id, now_ms=effect.now_ms)

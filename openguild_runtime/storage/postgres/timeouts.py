"""Time-outs of members in PostgreSQL. They end by the database's clock."""

from __future__ import annotations

from collections.abc import Iterable

from openguild_proto.effects.performs import performs
from openguild_proto.effects.timeouts import EndTimeout, TimeOutMember
from openguild_proto.mirror_records import MirroredMember
from openguild_proto.policy.permissions import Permission
from openguild_proto.policy.timeouts import decide_timeout
from openguild_proto.records import ControlKind, MemberChange
from openguild_proto.schemas.log_entries import timed_out
from openguild_runtime.storage.postgres.authority import require_in_guild
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, moment

ROLE = "SELECT role FROM guild_memberships WHERE guild_id = $1 AND user_id = $2"
END_PAST = "DELETE FROM guild_timeouts WHERE guild_id = $1 AND ends_at <= now()"
# Only for members, because another server may name any user.
KEEP = """
INSERT INTO guild_timeouts (guild_id, user_id, ends_at)
SELECT $1, given.user_id, given.ends_at FROM unnest($2::uuid[], $3::timestamptz[]) AS given (user_id, ends_at)
WHERE EXISTS (SELECT FROM guild_memberships AS m WHERE m.guild_id = $1 AND m.user_id = given.user_id)
ON CONFLICT (guild_id, user_id) DO UPDATE SET ends_at = EXCLUDED.ends_at
"""
END = "DELETE FROM guild_timeouts WHERE guild_id = $1 AND user_id = $2 RETURNING ends_at > now()"


@performs(TimeOutMember, Mode.TRANSACTION)
async def time_out_member(tx: Transaction, effect: TimeOutMember) -> MemberChange:
    change = await _decide(tx, effect)
    if change is MemberChange.DONE:
        await tx.connection.execute(END_PAST, effect.guild_id)
        await keep_timeout(tx.connection, effect.guild_id, effect.user_id, effect.ends_ms)
        await _tell(tx, effect, effect.ends_ms)
    return change


@performs(EndTimeout, Mode.TRANSACTION)
async def end_timeout(tx: Transaction, effect: EndTimeout) -> bool:
    if await _decide(tx, effect) is not MemberChange.DONE:
        return False
    if not await tx.connection.fetchval(END, effect.guild_id, effect.user_id):
        return False
    await _tell(tx, effect, None)
    return True


async def keep_timeouts(connection: Connection, guild_id: str, members: Iterable[MirroredMember]) -> None:
    """Store the time-outs of members as reported by the owner server, replacing earlier ones."""
    ends_ms = {each.user_id: each.timed_out_until_ms for each in members if each.timed_out_until_ms is not None}
    if ends_ms:
        await connection.execute(KEEP, guild_id, list(ends_ms), [moment(at_ms) for at_ms in ends_ms.values()])


async def keep_timeout(connection: Connection, guild_id: str, user_id: str, ends_ms: int) -> None:
    """Store a member's time-out, replacing an earlier one."""
    await connection.execute(KEEP, guild_id, [user_id], [moment(ends_ms)])


async def drop_timeout(connection: Connection, guild_id: str, user_id: str) -> None:
    """Delete a time-out."""
    await connection.execute(END, guild_id, user_id)


async def _decide(tx: Transaction, effect: TimeOutMember | EndTimeout) -> MemberChange:
    guild_id, user_id = effect.guild_id, effect.user_id
    _, author_role = await require_in_guild(tx, effect.author, guild_id, Permission.MANAGE_MEMBERS, changing=[user_id])
    return decide_timeout(author_role=author_role, held=await tx.connection.fetchval(ROLE, guild_id, user_id))


async def _tell(tx: Transaction, effect: TimeOutMember | EndTimeout, until_ms: int | None) -> None:
    entries = timed_out(effect.guild_id, effect.user_id, until_ms, effect.reason)
    await tx.append(entries, sender=effect.author.user_id, now_ms=effect.now_ms)
    await tx.log(ControlKind.MEMBER_CHANGED, guild_id=effect.guild_id, user_id=effect.user_id)

"""Users who have left a mirrored guild while its owner may still count them as members, in PostgreSQL."""

from __future__ import annotations

from openguild_proto.effects.mirrors import (
    KEPT_MS,
    TOLD_MS,
    ClaimPendingLeave,
    EndPendingLeave,
    FindNextMirror,
    FindPendingLeaves,
    LeaveMirror,
    NoteMistaken,
    NotePendingLeave,
    PendingLeave,
)
from openguild_proto.effects.performs import performs
from openguild_proto.mirror_records import RemoteUser
from openguild_proto.policy.account_deletion import DELETED_USERNAME
from openguild_proto.policy.members import OWNER, decide_removal
from openguild_proto.records import ControlKind, MemberChange
from openguild_proto.schemas.log_entries import left_guild
from openguild_runtime.storage.postgres.authority import hold_users
from openguild_runtime.storage.postgres.guilds import end_lost_rights
from openguild_runtime.storage.postgres.mirror_guild import HAS_OWN_MEMBERS, LEAVE, NOTE_MISTAKEN
from openguild_runtime.storage.postgres.mirrors import clear, tell_dropped
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, moment, moment_or_none, rows_changed, to_millis

HOLD = "SELECT FROM guilds WHERE guild_id = $1 AND origin = $2 FOR UPDATE"
ROLES = f"""
SELECT (SELECT role FROM guild_memberships WHERE guild_id = $1 AND user_id = $2) AS role,
    (SELECT count(*) FROM guild_memberships WHERE guild_id = $1 AND role = '{OWNER}') AS owners
FROM guilds WHERE guild_id = $1 AND origin = $3
"""
# Also deletes old notes, for owners that never come back.
NOTE = f"""
WITH gone AS (
    DELETE FROM federation_partings WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM federation_partings WHERE due_at < $4::timestamptz - interval '{KEPT_MS} milliseconds'
        AND (origin, guild_id, user_id) <> ($1, $2::uuid, $3::uuid) ORDER BY due_at LIMIT 10 FOR UPDATE SKIP LOCKED
    ))
)
INSERT INTO federation_partings AS p (origin, guild_id, user_id, due_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (origin, guild_id, user_id) DO UPDATE SET due_at = EXCLUDED.due_at
WHERE $5::timestamptz IS NULL OR p.due_at <= $5 OR p.due_at > $5 + $6::bigint * interval '1 millisecond'
RETURNING xmax = 0
"""
CLAIM = """
UPDATE federation_partings SET due_at = $5 WHERE origin = $1 AND guild_id = $2 AND user_id = $3 AND due_at = $4
"""


@performs(LeaveMirror, Mode.TRANSACTION)
async def leave_mirror(tx: Transaction, effect: LeaveMirror) -> MemberChange:
    guild_id, user_id = effect.guild_id, effect.user_id
    await hold_users(tx, [user_id])
    await tx.connection.execute(HOLD, guild_id, effect.origin)
    row = await tx.connection.fetchrow(ROLES, guild_id, user_id, effect.origin)
    if row is None:
        return MemberChange.NOT_MEMBER
    change = decide_removal(author_role=None, held=row["role"], owners=row["owners"], even_last=effect.even_last)
    if change is not MemberChange.DONE:
        return change
    await tx.connection.execute(LEAVE, guild_id, user_id)
    await end_lost_rights(tx, guild_id, user_id, row["role"], None)
    await tx.connection.execute(NOTE, effect.origin, guild_id, user_id, moment(effect.now_ms), None, TOLD_MS)
    left = left_guild(guild_id, user_id, removed=False, reason=None)
    if await tx.connection.fetchval(HAS_OWN_MEMBERS, guild_id):
        await tx.append(left, sender=user_id, now_ms=effect.now_ms)
        await tx.log(ControlKind.MEMBER_REMOVED, guild_id=guild_id, user_id=user_id)
        return MemberChange.DONE
    channel_ids = await clear(tx, guild_id)
    await tx.append(left, sender=user_id, now_ms=effect.now_ms)
    await tell_dropped(tx, guild_id, channel_ids)
    return MemberChange.DONE


@performs(NotePendingLeave, Mode.CHANGE)
async def note_pending_leave(connection: Connection, effect: NotePendingLeave) -> bool | None:
    now, due = moment_or_none(effect.now_ms), moment(effect.due_ms)
    is_new: bool | None = await connection.fetchval(
        NOTE, effect.origin, effect.guild_id, effect.user_id, due, now, TOLD_MS
    )
    return is_new


@performs(ClaimPendingLeave, Mode.CHANGE)
async def claim_pending_leave(connection: Connection, effect: ClaimPendingLeave) -> bool:
    pending = effect.pending
    status = await connection.execute(
        CLAIM,
        effect.origin,
        pending.guild_id,
        pending.user.user_id,
        moment(pending.due_ms),
        moment(effect.now_ms + TOLD_MS),
    )
    return rows_changed(status) == 1


@performs(NoteMistaken, Mode.CHANGE)
async def note_mistaken(connection: Connection, effect: NoteMistaken) -> None:
    user_ids = list(effect.user_ids)
    due = [moment(effect.now_ms)] * len(user_ids)
    await connection.execute(NOTE_MISTAKEN, effect.origin, effect.guild_id, user_ids, due)


@performs(FindPendingLeaves, Mode.QUERY)
async def find_pending_leaves(connection: Connection, effect: FindPendingLeaves) -> tuple[PendingLeave, ...]:
    rows = await connection.fetch(
        """
        SELECT p.guild_id, p.user_id, p.due_at, coalesce(u.username, $4) AS username, u.display_name
        FROM federation_partings AS p LEFT JOIN users AS u USING (user_id)
        WHERE p.origin = $1 AND p.due_at <= $2 AND NOT EXISTS (
            SELECT FROM guild_memberships AS m WHERE m.guild_id = p.guild_id AND m.user_id = p.user_id
        ) ORDER BY p.guild_id, p.user_id LIMIT $3
        """,
        effect.origin,
        moment(effect.now_ms),
        effect.limit,
        DELETED_USERNAME,
    )
    return tuple(
        PendingLeave(
            str(row["guild_id"]),
            RemoteUser(str(row["user_id"]), row["username"], row["display_name"]),
            to_millis(row["due_at"]),
        )
        for row in rows
    )


@performs(EndPendingLeave, Mode.CHANGE)
async def end_pending_leave(connection: Connection, effect: EndPendingLeave) -> None:
    pending = effect.pending
    await connection.execute(
        "DELETE FROM federation_partings WHERE origin = $1 AND guild_id = $2 AND user_id = $3 AND due_at = $4",
        effect.origin,
        pending.guild_id,
        pending.user.user_id,
        moment(pending.due_ms),
    )


@performs(FindNextMirror, Mode.QUERY)
async def find_next_mirror(connection: Connection, effect: FindNextMirror) -> str | None:
    guild_id = await connection.fetchval(
        """
        SELECT guild_id FROM guilds WHERE origin = $1 AND ($2::uuid IS NULL OR guild_id > $2)
        ORDER BY guild_id LIMIT 1
        """,
        effect.origin,
        effect.past,
    )
    return str(guild_id) if guild_id is not None else None

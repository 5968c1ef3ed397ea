"""Deletes accounts in PostgreSQL."""

from __future__ import annotations

from openguild_proto.effects.accounts import DeleteAccount, ListOwnedAlone
from openguild_proto.effects.performs import performs
from openguild_proto.policy.account_deletion import AccountDeletion, decide_account_deletion
from openguild_proto.policy.members import OWNER
from openguild_proto.records import GuildRecord
from openguild_runtime.storage.postgres.access import GUILD
from openguild_runtime.storage.postgres.accounts import end_invites_of
from openguild_runtime.storage.postgres.authority import require_author
from openguild_runtime.storage.postgres.deleted_logs import HOLD_LOGS, end_logs
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.sessions import STORED_HASH, log_revoked
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, moment

OWNED_ALONE = f"""
SELECT {GUILD} FROM guilds AS g WHERE ($3 OR g.origin IS NULL) AND guild_id IN (
    SELECT guild_id FROM guild_memberships AS m WHERE user_id = $1 AND role = '{OWNER}' AND NOT EXISTS (
        SELECT FROM guild_memberships AS o WHERE o.guild_id = m.guild_id AND o.role = '{OWNER}' AND o.user_id <> $1
    )
) ORDER BY created_at, guild_id LIMIT $2
"""
GUILDS = "SELECT count(*) FROM guild_memberships WHERE user_id = $1"
SESSIONS = "SELECT session_id FROM sessions WHERE user_id = $1 AND expires_at > $2 ORDER BY session_id"


@performs(ListOwnedAlone, Mode.QUERY)
async def list_owned_alone(connection: Connection, effect: ListOwnedAlone) -> tuple[GuildRecord, ...]:
    rows = await connection.fetch(OWNED_ALONE, effect.user_id, effect.limit, effect.with_mirrored)
    return tuple(GUILD.record(row) for row in rows)


@performs(DeleteAccount, Mode.TRANSACTION)
async def delete_account(tx: Transaction, effect: DeleteAccount) -> AccountDeletion:
    """Delete an account; foreign keys delete the rows that refer to it. Mentions stay with their messages and cannot be listed."""
    connection, user_id = tx.connection, effect.author.user_id
    await require_author(tx, effect.author, changing=[user_id])
    outcome = decide_account_deletion(
        stored_hash=await connection.fetchval(STORED_HASH, user_id),
        checked_hash=effect.checked_hash,
        guilds=await connection.fetchval(GUILDS, user_id),
    )
    if outcome is not AccountDeletion.DONE:
        return outcome
    rows = await connection.fetch(SESSIONS, user_id, moment(effect.now_ms))
    await end_invites_of(tx, user_id, (), effect.now_ms, sender=user_id)
    await connection.execute(HOLD_LOGS, [user_id])
    await end_logs(tx, [user_id])
    await connection.execute("DELETE FROM users WHERE user_id = $1", user_id)
    await log_revoked(tx, user_id, [str(row["session_id"]) for row in rows])
    return outcome

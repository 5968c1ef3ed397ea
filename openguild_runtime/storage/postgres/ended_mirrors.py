"""The end of a mirror, in the transaction of the removal or deletion that ends it.

The row of the mirror is locked before anything is appended, as it is when a peer reads a snapshot.
"""

from __future__ import annotations

from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import moment

HOLD = "SELECT FROM federation_guilds WHERE peer = $1 AND guild_id = $2 AND ended_at IS NULL FOR UPDATE"
HAS_MEMBERS = """
SELECT EXISTS (
    SELECT FROM guild_memberships AS m JOIN users AS u USING (user_id) WHERE m.guild_id = $2 AND u.origin = $1
)
"""
END = """
UPDATE federation_guilds SET ended_at = $3, last_sequence = $4, purged_at = NULL
WHERE peer = $1 AND guild_id = $2 AND ended_at IS NULL
"""
END_ALL = """
UPDATE federation_guilds SET ended_at = coalesce(ended_at, now()), last_sequence = NULL
WHERE guild_id = $1 AND purged_at IS NULL
"""


async def holds_last_member(tx: Transaction, guild_id: str, peer: str | None) -> bool:
    """Lock the row of a peer's mirror, and return whether the peer has no member left in the guild."""
    if peer is None:
        return False
    await tx.connection.execute(HOLD, peer, guild_id)
    return not await tx.connection.fetchval(HAS_MEMBERS, peer, guild_id)


async def end_mirror(tx: Transaction, guild_id: str, peer: str | None, now_ms: int) -> None:
    """End a peer's mirror. The last event it gets is the first that this transaction has appended to the guild's log."""
    last = next(event.sequence for event in tx.events if event.log_id == guild_id)
    await tx.connection.execute(END, peer, guild_id, moment(now_ms), last)


async def end_mirrors(tx: Transaction, guild_id: str) -> None:
    """End all mirrors of a guild that is being deleted."""
    await tx.connection.execute(END_ALL, guild_id)

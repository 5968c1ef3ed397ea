"""The end of a mirror, in the transaction of the removal or deletion that ends it.

The line of the mirror is held before anything is appended, as where a peer reads a snapshot.
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
    """Return whether a peer that mirrors the guild has no member left in it; then its line is held."""
    if peer is None:
        return False
    await tx.connection.execute(HOLD, peer, guild_id)
    return not await tx.connection.fetchval(HAS_MEMBERS, peer, guild_id)


async def end_mirror(tx: Transaction, guild_id: str, peer: str | None, now_ms: int) -> None:
    """Note that the peer must purge its mirror. What it gets last is the first event that this transaction appended there."""
    last = next(event.sequence for event in tx.events if event.log_id == guild_id)
    await tx.connection.execute(END, peer, guild_id, moment(now_ms), last)


async def end_mirrors(tx: Transaction, guild_id: str) -> None:
    """Note that every mirror of a guild that is being deleted is to be purged."""
    await tx.connection.execute(END_ALL, guild_id)

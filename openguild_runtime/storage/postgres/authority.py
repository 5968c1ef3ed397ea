"""Decides, in the transaction of a change, whether its author may make it.

A change of a user's rights (a role, a membership, a session) locks the user's row FOR UPDATE until the end of the
transaction. An action that needs rights locks it FOR KEY SHARE, so rights read after that are valid until the commit. The
locks of logins and retention do not conflict with FOR KEY SHARE. Users are locked first, in the order of their IDs.
"""

from __future__ import annotations

from collections.abc import Sequence

from openguild_proto.effects.channels import FindChannelAccess
from openguild_proto.effects.guilds import FindGuildAccess
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.policy.permissions import (
    Permission,
    require_channel,
    require_guild,
    require_owned,
    require_session,
)
from openguild_proto.records import Author, ChannelAccess, GuildAccess
from openguild_runtime.storage.postgres.access import find_channel_accesses, find_guild_access
from openguild_runtime.storage.postgres.transaction import Transaction

LIVING = """
SELECT EXISTS (SELECT FROM users WHERE user_id = $1) AND ($2::uuid IS NULL OR EXISTS (
    SELECT FROM sessions AS s JOIN refresh_families AS f USING (family_id)
    WHERE s.session_id = $2 AND s.user_id = $1 AND f.revoked_at IS NULL
))
"""


async def hold_users(tx: Transaction, user_ids: Sequence[str]) -> None:
    """Lock users whose rights will change."""
    await tx.connection.execute(
        "SELECT FROM users WHERE user_id = ANY ($1::uuid[]) ORDER BY user_id FOR UPDATE", list(user_ids)
    )


async def require_author(tx: Transaction, author: Author, *, changing: Sequence[str] = ()) -> None:
    """Lock the author's rights, and the users `changing`, whose rights will change. Raises Refusal 401 for an ended session."""
    if changing:
        await hold_users(tx, [author.user_id, *changing])
    else:
        await tx.connection.execute("SELECT FROM users WHERE user_id = $1 FOR KEY SHARE", author.user_id)
    require_session(await tx.connection.fetchval(LIVING, author.user_id, author.session_id))


async def require_in_guild(
    tx: Transaction, author: Author, guild_id: str, permission: Permission, *, changing: Sequence[str] = ()
) -> tuple[GuildAccess, str]:
    """Return the author's access and effective role. Locks the guild, so that counts stay valid. Raises Refusal."""
    await require_author(tx, author, changing=changing)
    await hold_guild(tx, guild_id)
    access = await find_guild_access(tx.connection, FindGuildAccess(guild_id=guild_id, user_id=author.user_id))
    role = require_guild(access, permission)
    if access is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    require_owned(access.guild.origin)
    return access, role


async def require_in_channel(
    tx: Transaction, author: Author, channel_id: str, permission: Permission
) -> ChannelAccess | None:
    """Return the author's access, or None if the channel does not exist. Raises Refusal."""
    await require_author(tx, author)
    question = FindChannelAccess(channel_id=channel_id, user_id=author.user_id)
    (access,) = await find_channel_accesses(tx.connection, [question])
    if access is not None:
        require_channel(access, permission)
    return access


async def hold_guild(tx: Transaction, guild_id: str) -> None:
    """Lock the guild, which serialises changes of its members, channels and invites."""
    await tx.connection.execute("SELECT FROM guilds WHERE guild_id = $1 FOR NO KEY UPDATE", guild_id)

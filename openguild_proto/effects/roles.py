"""Effects of the command line on roles."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.records import MemberChange


class GrantServerRole(StorageEffect[None], frozen=True):
    """Grant the user a server role; an existing one stays."""

    user_id: str
    role: str
    now_ms: int


class RevokeServerRole(StorageEffect[bool], frozen=True):
    """Revoke a server role, and the invites that the user could create by it alone. False: they did not have it."""

    user_id: str
    role: str
    now_ms: int


class GrantGuildRole(StorageEffect[MemberChange | None], frozen=True):
    """Set the user's role, and add the membership if there is none; ends rights as SetMemberRole does.

    DONE, or LAST_OWNER: the guild would have no owner, or NOT_MEMBER: a user of another server joins by an invite first, or BANNED.
    None: no such guild of this server.
    """

    guild_id: str
    user_id: str
    role: str
    now_ms: int


class GrantChannelRole(StorageEffect[bool | MemberChange], frozen=True):
    """Set the user's role in the channel, and add the membership if there is none. False: no such channel of this server.

    NOT_MEMBER: a user of another server joins the guild by an invite first.
    """

    channel_id: str
    user_id: str
    role: str
    now_ms: int

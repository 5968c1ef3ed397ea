"""Effects of the command line on roles."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.records import MemberChange


class GrantServerRole(StorageEffect[None], frozen=True):
    """Grant the user a server role, unless they have it."""

    user_id: str
    role: str
    now_ms: int


class RevokeServerRole(StorageEffect[bool], frozen=True):
    """Revoke a server role, and the invites that the user could only create because of it. False: they did not have it."""

    user_id: str
    role: str
    now_ms: int


class GrantGuildRole(StorageEffect[MemberChange | None], frozen=True):
    """Set the user's role, and add the membership if necessary; ends rights as SetMemberRole does.

    Returns DONE; LAST_OWNER, if the guild would have no owner; NOT_MEMBER for a user of another server, who must first join
    by an invite; or BANNED. None: this server has no such guild.
    """

    guild_id: str
    user_id: str
    role: str
    now_ms: int


class GrantChannelRole(StorageEffect[bool | MemberChange], frozen=True):
    """Set the user's role in the channel, and add the membership if necessary. False: this server has no such channel.

    NOT_MEMBER: a user of another server must first join the guild by an invite.
    """

    channel_id: str
    user_id: str
    role: str
    now_ms: int

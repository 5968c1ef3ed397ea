"""Roles granted by the command line."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.records import MemberChange


class GrantServerRole(StorageEffect[None], frozen=True):
    """Give the user a role on the whole server; one that they have stays."""

    user_id: str
    role: str
    now_ms: int


class RevokeServerRole(StorageEffect[bool], frozen=True):
    """False: the user did not have it."""

    user_id: str
    role: str


class GrantGuildRole(StorageEffect[MemberChange | None], frozen=True):
    """Sets the role and makes the membership where there is none; ends invites as SetMemberRole does.

    DONE, or LAST_OWNER: he would have left the guild without an owner. None: no such guild.
    """

    guild_id: str
    user_id: str
    role: str
    now_ms: int


class GrantChannelRole(StorageEffect[bool], frozen=True):
    """Sets the role and makes the channel membership where there is none. False: no such channel."""

    channel_id: str
    user_id: str
    role: str
    now_ms: int

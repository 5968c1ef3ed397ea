"""Roles, permissions, and the one place where access is decided (CONTRACT A1, A2, 11)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.records import ChannelAccess, GuildAccess

RANKS: dict[str, int] = {
    "owner": 7, "admin": 6, "moderator": 5, "maintainer": 4, "member": 3, "contributor": 2, "viewer": 1, "guest": 0,
}  # fmt: skip
ROLES = tuple(RANKS)
SEES_ALL_RANK = RANKS["moderator"]  # a server role from here on reaches every guild (A1)


class Permission(Enum):
    """What a role may allow, in a guild or in one of its channels (CONTRACT 11, A2)."""

    READ = "read"  # see it, its log and its streams
    SEND_MESSAGES = "send messages"  # in a channel
    CREATE_CHANNELS = "create channels"  # in a guild
    CREATE_INVITES = "create invites"  # to a guild
    MANAGE_MEMBERS = "manage members"  # change and remove those of a lower role, delete others' invites
    RENAME = "rename"  # a guild or a channel
    DELETE = "delete"  # a guild or a channel


LOWEST_ROLE: dict[Permission, str] = {
    Permission.READ: "guest",
    Permission.SEND_MESSAGES: "contributor",
    Permission.CREATE_CHANNELS: "maintainer",
    Permission.CREATE_INVITES: "maintainer",
    Permission.MANAGE_MEMBERS: "moderator",
    Permission.RENAME: "moderator",
    Permission.DELETE: "admin",
}
"""CONTRACT A2: the role from which on a permission is given."""


def rank(role: str | None) -> int:
    """-1 for no role or an unknown one."""
    return RANKS.get(role, -1) if role is not None else -1


def normalise_role(text: str) -> str | None:
    """The label in lower case, or None when there is no such role."""
    label = text.strip().lower()
    return label if label in RANKS else None


def highest(roles: Iterable[str | None]) -> str | None:
    """The highest known role; the earlier one on a tie."""
    best: str | None = None
    for role in roles:
        if rank(role) > rank(best):
            best = role
    return best


def effective_role(server_roles: Iterable[str], guild_role: str | None, channel_role: str | None = None) -> str | None:
    """The highest rank of the three scopes decides, not the scope (CONTRACT 11)."""
    return highest((*server_roles, guild_role, channel_role))


def allows(role: str | None, permission: Permission) -> bool:
    """Whether `role` (None or unknown: nothing) gives the permission."""
    return rank(role) >= RANKS[LOWEST_ROLE[permission]]


def sees_all(server_roles: Iterable[str]) -> bool:
    """Server moderators and above reach every guild without being a member of it."""
    return rank(highest(server_roles)) >= SEES_ALL_RANK


def require_guild(access: GuildAccess | None, permission: Permission) -> str:
    """The effective role. 404 for who may not know that the guild exists, 403 for a member without the permission."""
    if access is None or (access.role is None and not sees_all(access.server_roles)):
        raise Refusal(ErrorCode.NOT_FOUND)
    return _require(effective_role(access.server_roles, access.role), permission)


def require_channel(access: ChannelAccess | None, permission: Permission) -> str:
    """The effective role in the channel. Membership: of the guild, of the channel itself, or by server role."""
    if access is None or (
        access.guild_role is None and access.channel_role is None and not sees_all(access.server_roles)
    ):
        raise Refusal(ErrorCode.NOT_FOUND)
    return _require(effective_role(access.server_roles, access.guild_role, access.channel_role), permission)


def _require(role: str | None, permission: Permission) -> str:
    if role is None or not allows(role, permission):
        raise Refusal(ErrorCode.FORBIDDEN)
    return role

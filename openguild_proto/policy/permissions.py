"""Roles, permissions, and the one place where access is decided (PROTOCOL 5.8).

The `require_*` functions raise `Refusal`. Operations call them before they read a body; both stores call them again
in the transaction of the change, while they hold what the decision rests on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.records import ChannelAccess, GuildAccess

RANKS: dict[str, int] = {
    "owner": 7, "admin": 6, "moderator": 5, "maintainer": 4, "member": 3, "contributor": 2, "viewer": 1, "guest": 0,
}  # fmt: skip
ROLES = tuple(RANKS)
SEES_ALL_RANK = RANKS["moderator"]  # a server role from here on reaches every guild (PROTOCOL 5.3.1)


class Permission(Enum):
    """What a role may allow, in a guild or in one of its channels (PROTOCOL 5.2)."""

    READ = "read"  # see it, its log and its streams
    SEND_MESSAGES = "send messages"  # in a channel
    MANAGE_MESSAGES = "manage messages"  # in a channel: take back those of others, pin
    CREATE_CHANNELS = "create channels"  # in a guild
    CREATE_INVITES = "create invites"  # to a guild
    MANAGE_MEMBERS = "manage members"  # change and remove those of a lower role, delete others' invites
    RENAME = "rename"  # a guild or a channel
    DELETE = "delete"  # a guild or a channel


LOWEST_ROLE: dict[Permission, str] = {
    Permission.READ: "guest",
    Permission.SEND_MESSAGES: "contributor",
    Permission.MANAGE_MESSAGES: "moderator",
    Permission.CREATE_CHANNELS: "maintainer",
    Permission.CREATE_INVITES: "maintainer",
    Permission.MANAGE_MEMBERS: "moderator",
    Permission.RENAME: "moderator",
    Permission.DELETE: "admin",
}
"""The role from which on a permission is given (PROTOCOL 5.2)."""


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
    """The highest rank of the three scopes decides, not the scope (PROTOCOL 5.1.2)."""
    return highest((*server_roles, guild_role, channel_role))


def allows(role: str | None, permission: Permission) -> bool:
    """Whether `role` (None or unknown: nothing) gives the permission."""
    return rank(role) >= RANKS[LOWEST_ROLE[permission]]


def sees_all(server_roles: Iterable[str]) -> bool:
    """Server moderators and above reach every guild without being a member of it."""
    return rank(highest(server_roles)) >= SEES_ALL_RANK


def roles_with(permission: Permission) -> tuple[str, ...]:
    """The roles that give the permission, for a store that compares labels."""
    return tuple(role for role in ROLES if allows(role, permission))


def roles_enough_in_guild(server_roles: Sequence[str], permission: Permission) -> tuple[str, ...] | None:
    """The guild roles that give the permission beside these server roles; None: it needs no membership at all."""
    if not allows(highest(server_roles), permission):
        return roles_with(permission)
    return None if sees_all(server_roles) else ROLES


def roles_above(role: str) -> tuple[str, ...]:
    """The roles of a higher rank."""
    return tuple(other for other in ROLES if rank(other) > rank(role))


def require_session(living: bool) -> None:
    """401 for a change by a session that has been revoked, or whose account is gone."""
    if not living:
        raise Refusal(ErrorCode.UNAUTHORIZED)


def require_guild(access: GuildAccess | None, permission: Permission) -> str:
    """The effective role in the guild."""
    if access is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return require_role(access.server_roles, (access.role,), permission)


def require_channel(access: ChannelAccess | None, permission: Permission) -> str:
    """The effective role in the channel. Membership: of the guild, of the channel itself, or by server role."""
    if access is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return require_role(access.server_roles, (access.guild_role, access.channel_role), permission)


def require_role(server_roles: Sequence[str], memberships: Sequence[str | None], permission: Permission) -> str:
    """The effective role. `memberships`: the roles in the guild and, perhaps, the channel; None: no member of it.

    404 for callers who may not know that it exists, 403 for a member without the permission.
    """
    if all(role is None for role in memberships) and not sees_all(server_roles):
        raise Refusal(ErrorCode.NOT_FOUND)
    role = highest((*server_roles, *memberships))
    if role is None or not allows(role, permission):
        raise Refusal(ErrorCode.FORBIDDEN)
    return role


def needed_to_delete(created_by: str, user_id: str) -> Permission:
    """What an invite's deletion by the user needs: its creator needs no more than membership."""
    return Permission.READ if created_by == user_id else Permission.MANAGE_MEMBERS


def require_role_change(own_role: str, old_role: str, new_role: str, *, own: bool) -> None:
    """Nobody grants a role above their own, nor changes a member of their rank or a higher one; but owners change owners.

    `own_role`: the author's effective role. `own`: they change themselves.
    """
    if rank(new_role) > rank(own_role):
        raise Refusal(ErrorCode.FORBIDDEN, "you cannot grant a role above your own")
    among_owners = own_role == "owner" and old_role == "owner"
    if not own and rank(old_role) >= rank(own_role) and not among_owners:
        raise Refusal(ErrorCode.FORBIDDEN, "you can only change members below your own rank")


def require_removal(own_role: str, role: str) -> None:
    """Somebody else is removed by a member of a higher rank."""
    if rank(role) >= rank(own_role):
        raise Refusal(ErrorCode.FORBIDDEN, "you can only remove members below your own rank")

"""Roles and permissions: the only place that decides access (PROTOCOL 5.8).

The `require_*` functions raise `Refusal`. Operations call them before they read a body. Both stores call them again in
the transaction of the change, with the rows that they depend on locked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from functools import lru_cache

from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.records import ChannelAccess, GuildAccess

RANKS: dict[str, int] = {
    "owner": 7, "admin": 6, "moderator": 5, "maintainer": 4, "member": 3, "contributor": 2, "viewer": 1, "guest": 0,
}  # fmt: skip
ROLES = tuple(RANKS)
HANDED_OVER_RETRY_SECS = 1.0  # ours: the next request goes to the new owner
SEES_ALL_RANK = RANKS["moderator"]  # server roles of at least this rank reach every guild (PROTOCOL 5.3.1)


class Permission(Enum):
    """The permissions of roles, in a guild or in one of its channels (PROTOCOL 5.2)."""

    READ = "read"  # see the guild or channel, its log and its streams
    SEND_MESSAGES = "send messages"  # in a channel
    MANAGE_MESSAGES = "manage messages"  # in a channel: redact others' messages, pin
    MENTION_MANY = "mention many"  # in a channel: mention roles and everyone
    CREATE_CHANNELS = "create channels"  # in a guild
    CREATE_INVITES = "create invites"  # to a guild
    MANAGE_MEMBERS = "manage members"  # change and remove members of a lower role, delete others' invites
    RENAME = "rename"  # a guild or a channel
    DELETE = "delete"  # a guild or a channel


LOWEST_ROLE: dict[Permission, str] = {
    Permission.READ: "guest",
    Permission.SEND_MESSAGES: "contributor",
    Permission.MANAGE_MESSAGES: "moderator",
    Permission.MENTION_MANY: "moderator",
    Permission.CREATE_CHANNELS: "maintainer",
    Permission.CREATE_INVITES: "maintainer",
    Permission.MANAGE_MEMBERS: "moderator",
    Permission.RENAME: "moderator",
    Permission.DELETE: "admin",
}
"""The lowest role with each permission (PROTOCOL 5.2)."""


def rank(role: str | None) -> int:
    """Return the rank of a role, or -1 for None or an unknown one."""
    return RANKS.get(role, -1) if role is not None else -1


def normalise_role(text: str) -> str | None:
    """Return the role in lower case, or None if there is no such role."""
    label = text.strip().lower()
    return label if label in RANKS else None


def highest(roles: Iterable[str | None]) -> str | None:
    """Return the highest known role, the first one of equals."""
    best: str | None = None
    for role in roles:
        if rank(role) > rank(best):
            best = role
    return best


def effective_role(server_roles: Iterable[str], guild_role: str | None, channel_role: str | None = None) -> str | None:
    """Return the highest role of the three scopes (PROTOCOL 5.1.2)."""
    return highest((*server_roles, guild_role, channel_role))


def allows(role: str | None, permission: Permission) -> bool:
    """Return whether `role` has the permission; None and unknown roles have none."""
    return rank(role) >= RANKS[LOWEST_ROLE[permission]]


def sees_all(server_roles: Iterable[str]) -> bool:
    """Return whether the server roles reach every guild without membership: moderators and above."""
    return rank(highest(server_roles)) >= SEES_ALL_RANK


def roles_with(permission: Permission) -> tuple[str, ...]:
    """Return the roles with the permission, for a store that compares role names."""
    return tuple(role for role in ROLES if allows(role, permission))


def sufficient_guild_roles(server_roles: Sequence[str], permission: Permission) -> tuple[str, ...] | None:
    """Return the guild roles that suffice for the permission with these server roles; None: no membership is needed."""
    if not allows(highest(server_roles), permission):
        return roles_with(permission)
    return None if sees_all(server_roles) else ROLES


def roles_above(role: str) -> tuple[str, ...]:
    """Return the roles of a higher rank."""
    return tuple(other for other in ROLES if rank(other) > rank(role))


def require_session(living: bool) -> None:
    """Raise Refusal 401 unless the session is alive: neither revoked nor of a deleted account."""
    if not living:
        raise Refusal(ErrorCode.UNAUTHORIZED, log_cause="revoked")


def handed_over() -> Refusal:
    """Return the error 503 for a guild that was handed over to another server after the request began (PROTOCOL 16.10.4)."""
    return Refusal(ErrorCode.GUILD_OFFLINE, wait_secs=HANDED_OVER_RETRY_SECS)


def require_owned(origin: str | None) -> None:
    """Raise the Refusal 503 of `handed_over` for a guild of another server."""
    if origin is not None:
        raise handed_over()


def require_guild(access: GuildAccess | None, permission: Permission) -> str:
    """Return the effective role in the guild. Raises Refusal as `require_role` does."""
    if access is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return require_role(access.server_roles, (access.role,), permission)


def require_channel(access: ChannelAccess | None, permission: Permission) -> str:
    """Return the effective role in the channel. Raises Refusal as `require_role` does.

    Membership of the guild, a role in the channel, or a server role suffices.
    """
    if access is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return require_role(access.server_roles, (access.guild_role, access.channel_role), permission)


def require_role(server_roles: Sequence[str], memberships: Sequence[str | None], permission: Permission) -> str:
    """Return the effective role. `memberships`: the roles in the guild and in the channel; None: not a member.

    Raises Refusal: 404 for callers who may not know that it exists, 403 for members without the permission.
    """
    visible, role = _standing(tuple(server_roles), tuple(memberships))
    if not visible:
        raise Refusal(ErrorCode.NOT_FOUND)
    if role is None or not allows(role, permission):
        raise Refusal(ErrorCode.FORBIDDEN)
    return role


@lru_cache(maxsize=1_024)  # roles are few
def _standing(server_roles: tuple[str, ...], memberships: tuple[str | None, ...]) -> tuple[bool, str | None]:
    """Return whether the caller may know that it exists, and the effective role."""
    visible = any(role is not None for role in memberships) or sees_all(server_roles)
    return visible, highest((*server_roles, *memberships))


def is_allowed(server_roles: Sequence[str], memberships: Sequence[str | None], permission: Permission) -> bool:
    """Return whether `require_role` grants the permission."""
    try:
        require_role(server_roles, memberships, permission)
    except Refusal:
        return False
    return True


def needed_to_delete(created_by: str, user_id: str) -> Permission:
    """Return the permission to delete an invite; its creator needs only READ."""
    return Permission.READ if created_by == user_id else Permission.MANAGE_MEMBERS


def require_role_change(own_role: str, old_role: str, new_role: str, *, own: bool) -> None:
    """Raise Refusal 403 for a role above the author's own, or a member whose rank is not below the author's.

    Owners may change owners. `own_role`: the author's effective role. `own`: they change themselves.
    """
    if rank(new_role) > rank(own_role):
        raise Refusal(ErrorCode.FORBIDDEN, "you cannot grant a role above your own")
    among_owners = own_role == "owner" and old_role == "owner"
    if not own and rank(old_role) >= rank(own_role) and not among_owners:
        raise Refusal(ErrorCode.FORBIDDEN, "you can only change members below your own rank")


def require_removal(own_role: str, role: str) -> None:
    """Raise Refusal 403 unless the author's rank is higher than that of the member to remove."""
    if rank(role) >= rank(own_role):
        raise Refusal(ErrorCode.FORBIDDEN, "you can only remove members below your own rank")


def require_ban(own_role: str, role: str | None, *, own: bool) -> None:
    """Raise Refusal 403 unless the author may ban the user. `role`: the user's in the guild; None: not a member.

    The last owner of a guild cannot be banned, because nobody has a higher rank.
    """
    if own:
        raise Refusal(ErrorCode.FORBIDDEN, "you cannot ban yourself")
    if rank(role) >= rank(own_role):
        raise Refusal(ErrorCode.FORBIDDEN, "you can only ban members below your own rank")

"""Decisions on memberships: role changes, removals, and the rights that a lower role loses.

Both stores call them in the transaction of the change, with the guild and the member locked.
"""

from __future__ import annotations

from typing import NamedTuple

from openguild_proto.policy.permissions import (
    Permission,
    allows,
    rank,
    require_removal,
    require_role_change,
    roles_above,
)
from openguild_proto.records import MemberChange

OWNER = "owner"  # a guild keeps at least one (PROTOCOL 5.4.1)


class Ended(NamedTuple):
    """The rights that a member loses: roles in the guild's channels (None: all), and the invites that they created."""

    channel_roles: tuple[str, ...] | None
    invites: bool


def decide_role_change(
    *, author_role: str, held: str | None, role: str, own: bool, owners: int, owned: int, limit: int
) -> MemberChange:
    """Decide on a new role for a member. Raises Refusal 403.

    `held`: the member's current role. `own`: the author changes themselves. `owners`: of the guild. `owned`: guilds that
    the member owns, at most `limit`.
    """
    if held is None:
        return MemberChange.NOT_MEMBER
    require_role_change(author_role, held, role, own=own)
    if _is_last_owner(held, role, owners):
        return MemberChange.LAST_OWNER
    if role == OWNER != held and owned >= limit:
        return MemberChange.LIMIT_REACHED
    return MemberChange.DONE


def decide_removal(*, author_role: str | None, held: str | None, owners: int, even_last: bool = False) -> MemberChange:
    """Decide on the end of a membership. `author_role` None: the member leaves. `even_last`: allow it for the last owner.

    Raises Refusal 403.
    """
    if held is None:
        return MemberChange.NOT_MEMBER
    if author_role is not None:
        require_removal(author_role, held)
    is_last = not even_last and _is_last_owner(held, None, owners)
    return MemberChange.LAST_OWNER if is_last else MemberChange.DONE


def decide_grant(*, held: str | None, role: str, owners: int, is_banned: bool) -> MemberChange:
    """Decide on a role that an operator grants to a member, or to a non-member (`held` None)."""
    if is_banned:
        return MemberChange.BANNED
    return MemberChange.LAST_OWNER if _is_last_owner(held, role, owners) else MemberChange.DONE


def decide_ended(held: str | None, role: str | None) -> Ended:
    """Return the rights that the member loses with the new `role` (None: no role).

    A lower role ends higher roles in the guild's channels. A role without CREATE_INVITES ends the invites that the user
    created.
    """
    channel_roles: tuple[str, ...] | None = ()
    if role is None:
        channel_roles = None
    elif rank(role) < rank(held):
        channel_roles = roles_above(role)
    return Ended(channel_roles, invites=not allows(role, Permission.CREATE_INVITES))


def _is_last_owner(held: str | None, role: str | None, owners: int) -> bool:
    return held == OWNER != role and owners == 1

"""What becomes of a membership: role changes, removals, and what ends with a role.

Both stores call these in the transaction of the change, with what they read while they hold the guild and the member.
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
    """What a change of a member's role takes along: roles in the guild's channels (None: all), and the invites they created."""

    channel_roles: tuple[str, ...] | None
    invites: bool


def decide_role_change(
    *, author_role: str, held: str | None, role: str, own: bool, owners: int, owned: int, limit: int
) -> MemberChange:
    """`held`: the member's role now. `own`: the author changes themselves. `owners` of the guild; `owned`: guilds that the
    member owns, at most `limit`. Raises Refusal 403."""
    if held is None:
        return MemberChange.NOT_MEMBER
    require_role_change(author_role, held, role, own=own)
    if _is_last_owner(held, role, owners):
        return MemberChange.LAST_OWNER
    if role == OWNER != held and owned >= limit:
        return MemberChange.LIMIT_REACHED
    return MemberChange.DONE


def decide_removal(*, author_role: str | None, held: str | None, owners: int) -> MemberChange:
    """`author_role` None: they leave by themselves. Raises Refusal 403."""
    if held is None:
        return MemberChange.NOT_MEMBER
    if author_role is not None:
        require_removal(author_role, held)
    return MemberChange.LAST_OWNER if _is_last_owner(held, None, owners) else MemberChange.DONE


def decide_grant(*, held: str | None, role: str, owners: int) -> MemberChange:
    """An operator gives `role` to a member, or to a non-member (`held` None)."""
    return MemberChange.LAST_OWNER if _is_last_owner(held, role, owners) else MemberChange.DONE


def decide_ended(held: str | None, role: str | None) -> Ended:
    """A role that is lower than the one `held`, or none, takes along roles in the guild's channels that are above it; one
    that may not create invites takes those that the user created: an invite is worth what its creator may do."""
    channel_roles: tuple[str, ...] | None = ()
    if role is None:
        channel_roles = None
    elif rank(role) < rank(held):
        channel_roles = roles_above(role)
    return Ended(channel_roles, invites=not allows(role, Permission.CREATE_INVITES))


def _is_last_owner(held: str | None, role: str | None, owners: int) -> bool:
    return held == OWNER != role and owners == 1

"""Decides on timeouts of members, and the roles that count meanwhile (PROTOCOL 5.9). Both stores call it."""

from __future__ import annotations

from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.policy.members import OWNER
from openguild_proto.policy.permissions import ROLES, rank
from openguild_proto.records import MemberChange

TIMED_OUT_ROLE = "viewer"
MAX_TIMEOUT_SECS = 28 * 86_400
CHANNEL_ROLES_KEPT = tuple(role for role in ROLES if rank(role) <= rank(TIMED_OUT_ROLE))
GUILD_ROLES_KEPT = (OWNER, *CHANNEL_ROLES_KEPT)  # an owner keeps the role, because nobody could end their timeout


def guild_role_while_timed_out(role: str) -> str:
    """Return the role as which a guild role counts."""
    return role if role in GUILD_ROLES_KEPT else TIMED_OUT_ROLE


def channel_role_while_timed_out(role: str) -> str:
    """Return the role as which a channel role counts."""
    return role if role in CHANNEL_ROLES_KEPT else TIMED_OUT_ROLE


def decide_timeout(*, author_role: str, held: str | None) -> MemberChange:
    """Decide on a timeout, or on its end by a moderator. `held`: the member's role; None: not a member. Raises Refusal 403."""
    if held is None:
        return MemberChange.NOT_MEMBER
    if rank(held) >= rank(author_role):
        raise Refusal(ErrorCode.FORBIDDEN, "you can only time out members below your own rank")
    return MemberChange.DONE

"""Decides on time-outs of members, and on the role that counts during one (PROTOCOL 5.9). Both stores call it."""

from __future__ import annotations

from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.policy.members import OWNER
from openguild_proto.policy.permissions import ROLES, rank
from openguild_proto.records import MemberChange

TIMED_OUT_ROLE = "viewer"
MAX_TIMEOUT_SECS = 28 * 86_400
CHANNEL_ROLES_KEPT = tuple(role for role in ROLES if rank(role) <= rank(TIMED_OUT_ROLE))
GUILD_ROLES_KEPT = (OWNER, *CHANNEL_ROLES_KEPT)  # nobody could end the time-out of a member who became owner


def guild_role_while_timed_out(role: str) -> str:
    """Return the role that counts in place of a role in the guild."""
    return role if role in GUILD_ROLES_KEPT else TIMED_OUT_ROLE


def channel_role_while_timed_out(role: str) -> str:
    """Return the role that counts in place of a role in one of the guild's channels."""
    return role if role in CHANNEL_ROLES_KEPT else TIMED_OUT_ROLE


def decide_timeout(*, author_role: str, held: str | None) -> MemberChange:
    """Decide on a time-out, or its end by a moderator. `held`: the member's role; None for a non-member. Raises Refusal 403."""
    if held is None:
        return MemberChange.NOT_MEMBER
    if rank(held) >= rank(author_role):
        raise Refusal(ErrorCode.FORBIDDEN, "you can only time out members below your own rank")
    return MemberChange.DONE

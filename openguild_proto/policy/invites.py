"""How long an invite lives, which ones a guild keeps, and who gets in by one. Both stores decide by these."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from openguild_proto.policy.count_limits import decide_room
from openguild_proto.records import InviteRecord, LimitReached


class Joining(Enum):
    """What accepting an invite comes to."""

    JOIN = "join"  # a use is counted
    MEMBER_ALREADY = "member already"  # they keep their role, and no use is counted
    NOWHERE = "nowhere"  # deleted, used up or expired
    LIMIT_REACHED = "limit reached"


def invite_lives(invite: InviteRecord, now_ms: int) -> bool:
    """It still lets somebody in."""
    expired = invite.expires_at_ms is not None and invite.expires_at_ms <= now_ms
    return not expired and (invite.max_uses is None or invite.uses < invite.max_uses)


def decide_joining(invite: InviteRecord | None, *, is_member: bool, joined: int, now_ms: int, limit: int) -> Joining:
    """`joined`: guilds that the user is a member of, at most `limit`."""
    if invite is None:
        return Joining.NOWHERE
    if is_member:
        return Joining.MEMBER_ALREADY
    if not invite_lives(invite, now_ms):
        return Joining.NOWHERE
    return Joining.JOIN if decide_room(joined, limit) is None else Joining.LIMIT_REACHED


def decide_new_invite(invites: Sequence[InviteRecord], *, now_ms: int, limit: int) -> tuple[str, ...] | LimitReached:
    """For one more in a guild that has `invites`: the codes of those to forget, so that the newest `limit` of the spent
    ones stay; or that there is no room for another living one."""
    spent = [invite for invite in invites if not invite_lives(invite, now_ms)]
    full = decide_room(len(invites) - len(spent), limit)
    if full is not None:
        return full
    spent.sort(key=lambda invite: (-invite.created_at_ms, invite.code))
    return tuple(invite.code for invite in spent[limit:])

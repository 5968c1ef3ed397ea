"""Decisions on invites that both stores call: validity, retention, joining."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

from blake3 import blake3

from openguild_proto.policy.count_limits import check_count
from openguild_proto.records import InviteRecord, LimitReached

_CODE = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)  # new_code


class Joining(Enum):
    """The outcome of accepting an invite."""

    JOIN = "join"  # a use is counted
    MEMBER_ALREADY = "member already"  # their role stays, and no use is counted
    INVALID = "invalid"  # deleted, used up or expired
    BANNED = "banned"
    LIMIT_REACHED = "limit reached"


def invite_id(code: str) -> str:
    """Return the id of an invite for its guild's log: 64 bits of the hash of its code, which has 72 random bits."""
    return blake3(code.encode()).hexdigest(8)


def is_valid_invite(invite: InviteRecord, now_ms: int) -> bool:
    """Return whether the invite is neither expired nor used up."""
    expired = invite.expires_at_ms is not None and invite.expires_at_ms <= now_ms
    return not expired and (invite.max_uses is None or invite.uses < invite.max_uses)


def decide_joining(
    invite: InviteRecord | None, *, is_member: bool, is_banned: bool, joined: int, now_ms: int, limit: int
) -> Joining:
    """Decide whether the user joins. `joined`: guilds that they are a member of, at most `limit`."""
    if invite is None:
        return Joining.INVALID
    if is_member:
        return Joining.MEMBER_ALREADY
    if not is_valid_invite(invite, now_ms):
        return Joining.INVALID
    if is_banned:
        return Joining.BANNED
    return Joining.JOIN if check_count(joined, limit) is None else Joining.LIMIT_REACHED


def decide_new_invite(invites: Sequence[InviteRecord], *, now_ms: int, limit: int) -> tuple[str, ...] | LimitReached:
    """Decide on a new invite of a guild that has `invites`.

    Return the codes to delete, so that the newest `limit` invalid invites stay; LimitReached if there are `limit` valid ones.
    """
    spent = [invite for invite in invites if not is_valid_invite(invite, now_ms)]
    full = check_count(len(invites) - len(spent), limit)
    if full is not None:
        return full
    spent.sort(key=lambda invite: (-invite.created_at_ms, invite.code))
    return tuple(invite.code for invite in spent[limit:])


def parse_code(text: str) -> str | None:
    """Return `text` if it has the form of an invite code, else None."""
    return text if _CODE.fullmatch(text) is not None else None

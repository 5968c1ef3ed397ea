"""What both stores decide alike about channels: the creator's role, repeated posts, read positions."""

from __future__ import annotations

CREATOR_ROLE = "moderator"


def creator_role(guild_role: str | None) -> str | None:
    """The role in a new channel of whoever creates it. None for a non-member, so that nothing is left when their server
    role goes."""
    return CREATOR_ROLE if guild_role is not None else None


def is_same_post(*, fingerprint: bytes, stored_fingerprint: bytes, event_id: str, stored_event_id: str) -> bool:
    """Whether a post under a nonce, or an event id, that is stored already repeats what is stored there.

    Of a redacted event no fingerprint is left: whatever comes under its nonce is taken for a repeat.
    """
    return stored_fingerprint in {fingerprint, b""} or event_id == stored_event_id


def decide_read_position(asked: int | None, *, head: int, stored: int) -> int:
    """Up to where a channel counts as read: `asked` (None: the newest) within the log, and never less than before."""
    wanted = head if asked is None else min(max(asked, 0), head)
    return max(wanted, stored)

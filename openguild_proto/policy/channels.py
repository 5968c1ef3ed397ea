"""Decisions on channels that both stores call: the creator's role, repeated posts, read positions."""

from __future__ import annotations

CREATOR_ROLE = "moderator"


def creator_role(guild_role: str | None) -> str | None:
    """Return the creator's role in a new channel. None for a non-member, so that they keep no access when their server role
    is revoked."""
    return CREATOR_ROLE if guild_role is not None else None


def is_same_post(*, fingerprint: bytes, stored_fingerprint: bytes, event_id: str, stored_event_id: str) -> bool:
    """Return whether a post with a stored nonce or event id repeats the stored post.

    A redacted event has no fingerprint any more: every post with its nonce counts as a repeat.
    """
    return stored_fingerprint in {fingerprint, b""} or event_id == stored_event_id


def decide_read_position(asked: int | None, *, head: int, stored: int) -> int:
    """Return the new read position: `asked` (None: the newest), clamped to the log and never below the stored one."""
    wanted = head if asked is None else min(max(asked, 0), head)
    return max(wanted, stored)

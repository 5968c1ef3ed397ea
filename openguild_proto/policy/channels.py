"""Decisions on channels that both stores call: the creator's role, repeated posts, read positions."""

from __future__ import annotations

from msgspec.structs import replace

from openguild_proto.records import ChannelRecord

KIND_BYTES = 16  # the part of a fingerprint that remains after a redaction
CREATOR_ROLE = "moderator"


def creator_role(guild_role: str | None) -> str | None:
    """Return the creator's role in a new channel. None for a non-member, so that they keep no access when their server role
    is revoked."""
    return CREATOR_ROLE if guild_role is not None else None


def decide_channel(
    channel: ChannelRecord, *, name: str | None, topic: str | None, position: int | None
) -> ChannelRecord | None:
    """Return the channel with the given changes, or None if nothing changes. An empty topic removes the topic."""
    changed = replace(
        channel,
        name=channel.name if name is None else name,
        topic=channel.topic if topic is None else topic or None,
        position=channel.position if position is None else position,
    )
    return changed if changed != channel else None


def is_same_post(*, fingerprint: bytes, stored_fingerprint: bytes, event_id: str, stored_event_id: str) -> bool:
    """Return whether a post with a stored nonce or event id repeats the stored post.

    A redacted event keeps only the part of its fingerprint that does not depend on the text. So a post with its nonce counts
    as a repeat with any text, but not if it is of another kind or about another message.
    """
    return is_same_content(fingerprint, stored_fingerprint) or event_id == stored_event_id


def is_same_content(fingerprint: bytes, stored_fingerprint: bytes) -> bool:
    """Return whether two fingerprints belong to the same request. A redacted event keeps only the first part."""
    return stored_fingerprint in (fingerprint, fingerprint[:KIND_BYTES])


def decide_read_position(asked: int | None, *, head: int, stored: int) -> int:
    """Return the new read position: `asked` (None: the newest), clamped to the log and never below the stored one."""
    wanted = head if asked is None else min(max(asked, 0), head)
    return max(wanted, stored)

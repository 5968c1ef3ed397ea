"""Effects on timeouts of members (PROTOCOL 5.9). Each change is an event in the guild's log."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.records import Author, MemberChange


class TimeOutMember(StorageEffect[MemberChange], frozen=True):
    """Time a member out until `ends_ms`: their roles in the guild count as viewer at most. Replaces an earlier timeout.

    The timeout stays if they leave and join again. `reason`: is in the event.
    """

    author: Author
    guild_id: str
    user_id: str
    ends_ms: int
    now_ms: int
    reason: str | None = None


class EndTimeout(StorageEffect[bool], frozen=True):
    """End a member's timeout now. False: there is none."""

    author: Author
    guild_id: str
    user_id: str
    now_ms: int
    reason: str | None = None

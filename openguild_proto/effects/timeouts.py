"""Effects on time-outs of members (PROTOCOL 5.9). Each change is told in the guild's log."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.records import Author, MemberChange


class TimeOutMember(StorageEffect[MemberChange], frozen=True):
    """Let the member's roles in the guild and its channels count as viewer at most until `ends_ms`, in place of a time-out before.

    It outlasts that they leave and join again. `reason`: stands in the log.
    """

    author: Author
    guild_id: str
    user_id: str
    ends_ms: int
    now_ms: int
    reason: str | None = None


class EndTimeout(StorageEffect[bool], frozen=True):
    """End a member's time-out now. False: they have none."""

    author: Author
    guild_id: str
    user_id: str
    now_ms: int
    reason: str | None = None

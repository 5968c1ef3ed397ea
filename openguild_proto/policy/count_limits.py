"""Limits on how many guilds, channels and invites there may be."""

from __future__ import annotations

from openguild_proto.records import LimitReached


def check_count(count: int, limit: int) -> LimitReached | None:
    """Return LimitReached if there are `limit` already; None: one more may be added."""
    return LimitReached(limit) if count >= limit else None

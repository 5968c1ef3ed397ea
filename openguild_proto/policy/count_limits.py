"""Limits on how many guilds, channels and invites there may be, and how reads of many logs count."""

from __future__ import annotations

from openguild_proto.limits import LOGS_PER_READ
from openguild_proto.records import LimitReached


def check_count(count: int, limit: int) -> LimitReached | None:
    """Return LimitReached if there are `limit` already; None: one more may be added."""
    return LimitReached(limit) if count >= limit else None


def reads_of(logs: int) -> int:
    """Return as how many reads a request about so many logs counts (PROTOCOL 9.2.10)."""
    return max(1, -(-logs // LOGS_PER_READ))

"""Limits on the numbers of guilds, channels and invites, and the cost of reads of many logs."""

from __future__ import annotations

from openguild_proto.limits import LOGS_PER_READ
from openguild_proto.records import LimitReached


def check_count(count: int, limit: int) -> LimitReached | None:
    """Return LimitReached if `limit` is reached, or None if one more may be added."""
    return LimitReached(limit) if count >= limit else None


def reads_of(logs: int) -> int:
    """Return the number of reads as which a request about this many logs counts (PROTOCOL 9.2.10)."""
    return max(1, -(-logs // LOGS_PER_READ))

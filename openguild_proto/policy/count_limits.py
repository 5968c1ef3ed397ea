"""Limits on the number of guilds, channels and invites, and the number of reads that a request counts as."""

from __future__ import annotations

from openguild_proto.limits import LOGS_PER_READ
from openguild_proto.records import LimitReached


def check_count(count: int, limit: int) -> LimitReached | None:
    """Return LimitReached if the limit is reached, or None if one more may be added."""
    return LimitReached(limit) if count >= limit else None


def reads_of(logs: int) -> int:
    """Return the number of reads that a request about this number of logs counts as (PROTOCOL 9.2.10)."""
    return max(1, -(-logs // LOGS_PER_READ))

"""How many there may be of something."""

from __future__ import annotations

from openguild_proto.records import LimitReached


def decide_room(count: int, limit: int) -> LimitReached | None:
    """For one more where there are `count`; None: there is room."""
    return LimitReached(limit) if count >= limit else None

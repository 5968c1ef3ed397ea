"""Selects the primary of several database servers. After a failover the former primary may return and also accept writes."""

from __future__ import annotations

from collections.abc import Mapping


class PrimaryChoice:
    """Selects by timeline: each promotion starts a later one. Never goes back to an earlier timeline."""

    def __init__(self) -> None:
        self.newest = 0

    def choose(self, timelines: Mapping[int, int]) -> int | None:
        """Return the writable server with the newest timeline, or None if all are former primaries. `timelines`: by server."""
        if not timelines or max(timelines.values()) < self.newest:
            return None
        self.newest = max(timelines.values())
        return next(number for number, timeline in timelines.items() if timeline == self.newest)

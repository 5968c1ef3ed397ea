"""Decides which of several database servers is the primary. After a failover, the former primary may return and accept writes."""

from __future__ import annotations

from collections.abc import Mapping


class PrimaryChoice:
    """Chooses by timeline: each promotion starts a later one. Never returns to an earlier timeline than it has seen."""

    def __init__(self) -> None:
        self.newest = 0

    def choose(self, timelines: Mapping[int, int]) -> int | None:
        """Return the server with the newest timeline among those that accept writes, or None if all are former primaries."""
        if not timelines or max(timelines.values()) < self.newest:
            return None
        self.newest = max(timelines.values())
        return next(number for number, timeline in timelines.items() if timeline == self.newest)

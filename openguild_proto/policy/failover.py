"""Decides which of several database servers is the primary: after a failover the former one may return and accept writes, too."""

from __future__ import annotations

from collections.abc import Mapping


class PrimaryChoice:
    """Chooses by timeline: each promotion begins a later one. Never goes back to an earlier one than it has seen."""

    def __init__(self) -> None:
        self.newest = 0

    def choose(self, timelines: Mapping[int, int]) -> int | None:
        """Return the server with the newest timeline, of those that take writes; None: there are only former primaries."""
        if not timelines or max(timelines.values()) < self.newest:
            return None
        self.newest = max(timelines.values())
        return next(number for number, timeline in timelines.items() if timeline == self.newest)

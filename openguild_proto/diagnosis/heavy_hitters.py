"""Counts by key over a minute, in bounded memory: requests by user, failed logins by address and by account."""

from __future__ import annotations

from openguild_proto.limits import MAX_COUNTED_KEYS

WINDOW_SECS = 60.0


class HeavyHitters:
    """Finds the keys with the highest counts (Misra and Gries 1982). Beyond `capacity` keys a count may be too low.

    It is too low by at most the minute's total divided by `capacity`, so a key with a higher count is never missed.
    """

    def __init__(self, capacity: int = MAX_COUNTED_KEYS) -> None:
        self._capacity = capacity
        self._window = 0  # number of the current minute
        self._counts: dict[str, int] = {}
        self._former: dict[str, int] = {}

    def count(self, key: str, now: float) -> None:
        """Count `key` once. `now`: seconds, always of the same clock."""
        if int(now // WINDOW_SECS) != self._window:
            self._turn(now)
        counts = self._counts
        if key in counts:
            counts[key] += 1
        elif len(counts) < self._capacity:
            counts[key] = 1
        else:  # amortised O(1): each subtracted count was added once
            self._counts = {each: count - 1 for each, count in counts.items() if count > 1}

    def _turn(self, now: float) -> None:
        window = int(now // WINDOW_SECS)
        self._former = self._counts if window == self._window + 1 else {}
        self._window, self._counts = window, {}

    def busiest(self, limit: int, now: float) -> list[tuple[str, int]]:
        """Return (key, count of the last minute), highest first. The share of the previous minute is estimated."""
        if int(now // WINDOW_SECS) != self._window:
            self._turn(now)
        rest = 1 - now % WINDOW_SECS / WINDOW_SECS
        rates = {key: count * rest for key, count in self._former.items()}
        for key, count in self._counts.items():
            rates[key] = rates.get(key, 0) + count
        rounded = [(key, round(rate)) for key, rate in rates.items() if rate >= 0.5]
        return sorted(rounded, key=lambda line: (-line[1], line[0]))[:limit]

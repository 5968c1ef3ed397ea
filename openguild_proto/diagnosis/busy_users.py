"""Counts requests by user over a minute, in bounded memory."""

from __future__ import annotations

from openguild_proto.limits import MAX_COUNTED_USERS

WINDOW_SECS = 60.0


class BusyUsers:
    """Finds the users with the most requests (Misra and Gries 1982): beyond `capacity` users, a count may be too low.

    It is too low by at most the minute's requests divided by `capacity`, so a user with more of them is never missed.
    """

    def __init__(self, capacity: int = MAX_COUNTED_USERS) -> None:
        self._capacity = capacity
        self._window = 0  # number of the current minute
        self._counts: dict[str, int] = {}
        self._former: dict[str, int] = {}

    def count(self, user_id: str, now: float) -> None:
        """Count a request. `now`: monotonic seconds."""
        if int(now // WINDOW_SECS) != self._window:
            self._turn(now)
        counts = self._counts
        if user_id in counts:
            counts[user_id] += 1
        elif len(counts) < self._capacity:
            counts[user_id] = 1
        else:  # amortised O(1): each count that is taken away was a request
            self._counts = {each: count - 1 for each, count in counts.items() if count > 1}

    def _turn(self, now: float) -> None:
        window = int(now // WINDOW_SECS)
        self._former = self._counts if window == self._window + 1 else {}
        self._window, self._counts = window, {}

    def busiest(self, limit: int, now: float) -> list[tuple[str, int]]:
        """Return (user id, requests of the last minute), most first. The part of the former minute is estimated."""
        if int(now // WINDOW_SECS) != self._window:
            self._turn(now)
        rest = 1 - now % WINDOW_SECS / WINDOW_SECS
        rates = {user_id: count * rest for user_id, count in self._former.items()}
        for user_id, count in self._counts.items():
            rates[user_id] = rates.get(user_id, 0) + count
        rounded = [(user_id, round(rate)) for user_id, rate in rates.items() if rate >= 0.5]
        return sorted(rounded, key=lambda line: (-line[1], line[0]))[:limit]

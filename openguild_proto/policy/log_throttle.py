"""Limits how often the log repeats a message."""

from __future__ import annotations

REPEAT_SECS = 60.0  # between two lines about the same fault


class LogThrottle:
    """Allows the first line of a key, then one in `every_secs`. Keys come from a fixed set."""

    def __init__(self, every_secs: float = REPEAT_SECS) -> None:
        self._every_secs = every_secs
        self._logged_at: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def due(self, key: str, now: float) -> int | None:
        """Return how many lines were suppressed since the last one, or None to suppress this one. `now`: monotonic seconds."""
        logged_at = self._logged_at.get(key)
        if logged_at is not None and now - logged_at < self._every_secs:
            self._suppressed[key] = self._suppressed.get(key, 0) + 1
            return None
        self._logged_at[key] = now
        return self._suppressed.pop(key, 0)

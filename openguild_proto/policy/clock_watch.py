"""Turns expiries into deadlines, and notices when the wall clock moves against the monotonic clock.

A request compares the expiry of its token with the wall clock. An open stream has a monotonic deadline that was computed
from the expiry. After a change of the wall clock such deadlines are computed again, so that a token expires for requests
and for streams at the same time.
"""

from __future__ import annotations

from openguild_proto.limits import MAX_CLOCK_DRIFT_SECS


def deadline_of(expires_ms: int, now: float, wall: float) -> float:
    """Return the monotonic time of an expiry. `expires_ms`: UTC milliseconds. `now`, `wall`: the two clocks now, in seconds."""
    return now + (expires_ms / 1000 - wall)


class ClockWatch:
    """Notices that the wall clock has moved by more than MAX_CLOCK_DRIFT_SECS against the monotonic one.

    A step is noticed at once, slewing when it adds up.
    """

    def __init__(self) -> None:
        self._offset: float | None = None  # from the first look on

    def moved(self, now: float, wall: float) -> float:
        """Return the seconds that the wall clock has moved since they were last returned; 0.0 below the bound, negative: back."""
        if self._offset is None:
            self._offset = wall - now
        by = wall - now - self._offset
        if abs(by) <= MAX_CLOCK_DRIFT_SECS:
            return 0.0
        self._offset += by
        return by

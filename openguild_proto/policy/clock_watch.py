"""Converts expiries to deadlines, and detects jumps of the wall clock against the monotonic clock.

A request compares the expiry of its token with the wall clock. An open stream has a monotonic deadline computed from the
expiry. After a change of the wall clock these deadlines are computed again, so that a token expires at the same time for
requests and for streams.
"""

from __future__ import annotations

from openguild_proto.limits import MAX_CLOCK_DRIFT_SECS


def deadline_of(expires_ms: int, now: float, wall: float) -> float:
    """Return the monotonic time of an expiry. `expires_ms`: UTC milliseconds. `now`, `wall`: the two clocks now, in seconds."""
    return now + (expires_ms / 1000 - wall)


class ClockWatch:
    """Detects that the wall clock has moved by more than MAX_CLOCK_DRIFT_SECS against the monotonic clock.

    A jump is detected at once, slewing when it adds up.
    """

    def __init__(self) -> None:
        self._offset: float | None = None  # set by the first call

    def moved(self, now: float, wall: float) -> float:
        """Return by how many seconds the wall clock was moved since the last detection; negative: back; 0.0: within the bound."""
        if self._offset is None:
            self._offset = wall - now
        by = wall - now - self._offset
        if abs(by) <= MAX_CLOCK_DRIFT_SECS:
            return 0.0
        self._offset += by
        return by

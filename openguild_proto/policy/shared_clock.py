"""One wall clock for all replicas: the store's, extrapolated between readings by each replica's monotonic clock.

The clocks of machines differ, and replicas compare times that others stored: of refreshes, attempts, invites and
sessions. So no replica uses its own wall clock for them.
"""

from __future__ import annotations

from typing import NamedTuple

from openguild_proto.limits import CLOCK_DRIFT


class Reading(NamedTuple):
    """A reading: the store's clock showed `wall_ms` within `error_secs` of the monotonic time `at`."""

    wall_ms: float
    at: float
    error_secs: float

    @classmethod
    def between(cls, asked: float, answered: float, wall_ms: float) -> Reading:
        """Return the reading of a query sent at `asked` and answered at `answered`. The store read its clock in between."""
        return cls(wall_ms, (asked + answered) / 2, (answered - asked) / 2)

    def error_at(self, now: float) -> float:
        """Return the possible error in seconds, which grows with the drift of the two clocks."""
        return self.error_secs + (now - self.at) * CLOCK_DRIFT


class SharedClock:
    """Keeps the best reading. Take readings regularly, to detect a change of the store's clock."""

    __slots__ = ("_reading",)

    def __init__(self) -> None:
        self._reading: Reading | None = None

    @property
    def is_set(self) -> bool:
        """Whether there is a reading."""
        return self._reading is not None

    def wall_ms(self, now: float) -> float | None:
        """Return UTC milliseconds of the store's clock; None without a reading. `now`: monotonic seconds."""
        reading = self._reading
        return None if reading is None else reading.wall_ms + (now - reading.at) * 1000

    def take(self, reading: Reading) -> float:
        """Use `reading` if it is more exact than the one in use, or contradicts it.

        Return the seconds by which it contradicts: 0.0 unless the store's clock was set, another machine became the
        store, or this machine was suspended.
        """
        used, shown = self._reading, self.wall_ms(reading.at)
        if used is None or shown is None:
            self._reading = reading
            return 0.0
        error, former = reading.error_secs, used.error_at(reading.at)
        apart = (reading.wall_ms - shown) / 1000
        contradicts = abs(apart) > error + former
        if contradicts or error <= former:
            self._reading = reading
        return apart if contradicts else 0.0

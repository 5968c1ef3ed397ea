"""One time for all replicas: the store's clock, carried forward by each replica's own monotonic one.

Machines' clocks differ, and what one replica stores another compares: when a refresh token was exchanged, when an
attempt was made, when an invite or a session ends. So nobody's wall clock decides anything. The store's clock is read
now and then; between two readings a monotonic clock, which nobody sets, counts on.
"""

from __future__ import annotations

from typing import NamedTuple

from openguild_proto.limits import CLOCK_DRIFT


class Reading(NamedTuple):
    """The store's clock said `wall_ms` at some moment within `error_secs` of `at`, in monotonic seconds."""

    wall_ms: float
    at: float
    error_secs: float

    @classmethod
    def between(cls, asked: float, answered: float, wall_ms: float) -> Reading:
        """Of an answer: when in between the clock was looked at is not known."""
        return cls(wall_ms, (asked + answered) / 2, (answered - asked) / 2)

    def wall_at(self, now: float) -> float:
        """UTC milliseconds at `now`."""
        return self.wall_ms + (now - self.at) * 1000

    def error_at(self, now: float) -> float:
        """Seconds; two clocks run apart while nobody compares them."""
        return self.error_secs + (now - self.at) * CLOCK_DRIFT


class SharedClock:
    """The best reading so far. `take` one often enough that a clock that was set is noticed."""

    __slots__ = ("_reading",)

    def __init__(self) -> None:
        self._reading: Reading | None = None

    @property
    def is_set(self) -> bool:
        """Whether there is a reading."""
        return self._reading is not None

    def wall_ms(self, now: float) -> float | None:
        """UTC milliseconds of the store's clock; None without a reading. `now`: monotonic seconds."""
        return None if self._reading is None else self._reading.wall_at(now)

    def take(self, reading: Reading) -> float:
        """Use `reading` where it is the better one, and in any case where it contradicts the one in use.

        Returns by how many seconds it contradicts: 0.0, unless somebody has set the store's clock, another machine has
        become the store, or this one was suspended.
        """
        used = self._reading
        if used is None:
            self._reading = reading
            return 0.0
        error, former = reading.error_secs, used.error_at(reading.at)
        apart = (reading.wall_ms - used.wall_at(reading.at)) / 1000
        contradicts = abs(apart) > error + former
        if contradicts or error <= former:
            self._reading = reading
        return apart if contradicts else 0.0

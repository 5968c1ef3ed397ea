"""One timer for all connections: coarse buckets instead of a task or a heap entry per deadline.

Deadlines of idle sockets move all the time and almost never pass. A connection is in one bucket. If its deadline moved later,
this is noticed when the bucket is due; if it moved earlier, the connection moves to an earlier bucket. So `arm` is usually one
comparison, and an idle connection costs one dict entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

TICK_SECS = 0.1  # call `due` this often: deadlines are up to two ticks late


class Timed(Protocol):
    """An object with a deadline."""

    timer_tick: int  # the bucket that holds the object, -1 for none; set by the wheel

    def next_deadline(self) -> float | None:
        """Return the next deadline in monotonic seconds, None if there is none."""


T = TypeVar("T", bound=Timed)


class _Bucket(dict[T, None]):
    """The entries to check in one tick. They share its number."""

    __slots__ = ("tick",)

    def __init__(self, tick: int) -> None:
        self.tick = tick


class TimerWheel(Generic[T]):
    """Buckets of `TICK_SECS`. `now`: monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._buckets: dict[int, _Bucket[T]] = {}
        self._done = int(now / TICK_SECS)
        self._looked_at: Iterator[T] = iter(())  # the rest of the bucket `_done`

    def arm(self, timed: T) -> None:
        """Ensure that `timed` is checked no later than its next deadline."""
        deadline = timed.next_deadline()
        if deadline is None:
            return
        tick = max(int(deadline / TICK_SECS) + 1, self._done + 1)
        if timed.timer_tick == -1 or tick < timed.timer_tick:
            self.disarm(timed)
            bucket = self._buckets.get(tick)
            if bucket is None:
                bucket = self._buckets[tick] = _Bucket(tick)
            timed.timer_tick = bucket.tick
            bucket[timed] = None

    def disarm(self, timed: T) -> None:
        """Remove `timed` from its bucket. Safe to repeat."""
        bucket = self._buckets.get(timed.timer_tick)
        if bucket is not None:
            bucket.pop(timed, None)
            if not bucket:
                del self._buckets[timed.timer_tick]
        timed.timer_tick = -1

    def due(self, now: float) -> Iterator[T]:
        """Yield the items whose deadline has passed; handle each before taking the next. All others get new buckets.

        Many deadlines may pass together if many connections were opened together. The caller may pause between two items, or
        stop: the next call continues after the last item taken.
        """
        while True:
            for timed in self._looked_at:
                if timed.timer_tick != self._done:
                    continue  # disarmed since, or in another bucket
                timed.timer_tick = -1
                deadline = timed.next_deadline()
                if deadline is not None and deadline <= now:
                    yield timed
                self.arm(timed)
            if self._done >= int(now / TICK_SECS):
                return
            self._done += 1
            self._looked_at = iter(self._buckets.pop(self._done, ()))

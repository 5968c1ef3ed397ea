"""One timer for all connections: coarse buckets instead of a task or a heap entry per deadline.

Deadlines of idle sockets move all the time and almost never fire. A connection stands in one bucket; a deadline
that moved later is noticed when the bucket comes up, one that moved earlier is put into an earlier bucket.
So `arm` is one comparison in the common case, and an idle connection costs one dict entry.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import anyio
import anyio.lowlevel

from openguild_proto.limits import TURN_SECS
from openguild_runtime.system.background import log_exceptions

TICK_SECS = 0.1  # a deadline fires up to two of these late


class Timed(Protocol):
    """What the wheel turns: the next deadline in monotonic seconds, and what to do when it has passed."""

    timer_tick: int  # the bucket the object stands in, -1 for none; owned by the wheel

    def next_deadline(self) -> float | None:
        """Monotonic seconds; None: nothing is waited for."""

    def deadline_passed(self, now: float) -> None:
        """Act on it; `now`: monotonic seconds."""


class TimerWheel:
    """Buckets of `TICK_SECS`; `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[int, dict[Timed, None]] = {}
        self._done = int(clock() / TICK_SECS)
        self._due: deque[Timed] = deque()  # of the bucket `_done`, in which some may not have been looked at yet

    def arm(self, timed: Timed) -> None:
        """Make sure that `timed` is looked at no later than its next deadline."""
        deadline = timed.next_deadline()
        if deadline is None:
            return
        tick = max(int(deadline / TICK_SECS) + 1, self._done + 1)
        if timed.timer_tick == -1 or tick < timed.timer_tick:
            self.disarm(timed)
            timed.timer_tick = tick
            self._buckets.setdefault(tick, {})[timed] = None

    def disarm(self, timed: Timed) -> None:
        """Forget `timed`; safe to repeat."""
        if timed.timer_tick != -1:
            bucket = self._buckets.get(timed.timer_tick)
            if bucket is not None:
                bucket.pop(timed, None)
                if not bucket:
                    del self._buckets[timed.timer_tick]
            timed.timer_tick = -1

    def turn(self) -> bool:
        """Fire what is due and put the rest into their new buckets, for TURN_SECS at most. False: call again, it was too much.

        Thousands of deadlines pass together where thousands of connections came together.
        """
        now = self._clock()
        current = int(now / TICK_SECS)
        while self._due or self._done < current:
            if not self._due:
                self._done += 1
                self._due.extend(self._buckets.pop(self._done, ()))
                continue
            timed = self._due.popleft()
            if timed.timer_tick != self._done:
                continue  # disarmed since, or in another bucket
            timed.timer_tick = -1
            with log_exceptions("a deadline"):  # the other connections of this bucket have theirs
                deadline = timed.next_deadline()
                if deadline is not None and deadline <= now:
                    timed.deadline_passed(now)
                self.arm(timed)
            if self._due and self._clock() >= now + TURN_SECS:
                return False
        return True

    async def run(self) -> None:
        """Turn for ever; cancel to stop."""
        while True:
            await anyio.sleep(TICK_SECS)
            while not self.turn():
                await anyio.lowlevel.checkpoint()

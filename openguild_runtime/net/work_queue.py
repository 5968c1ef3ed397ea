"""Work for very many sockets, a few milliseconds of each turn of the loop: nothing that concerns many holds up the rest.

A message to everybody's notification stream, a revocation that ends thousands of streams, readers who have lagged
together: each is a `Turns.each`. What fits into the turn's time is done at once, so the common small case is as
immediate as a plain loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import Any, TypeVar

import anyio.lowlevel
import structlog
from anyio.abc import TaskGroup

from openguild_proto.limits import FEW_AT_ONCE, MAX_WAITING_WORKS, TURN_SECS
from openguild_runtime.system.background import start_contained

T = TypeVar("T")
AT_A_TIME = 8  # between two looks at the clock
Work = tuple[Iterator[Any], Callable[[Any], None]]

log = structlog.get_logger("openguild.turns")


class WorkQueue:
    """One queue for all such work, first come first done, `TURN_SECS` of each turn in all. `clock`: monotonic seconds."""

    def __init__(self, tasks: TaskGroup, clock: Callable[[], float]) -> None:
        self._tasks = tasks
        self._clock = clock
        self._waiting: deque[Work] = deque()
        self._until: float | None = None  # when this turn's time is over; None: nothing was done in it yet
        self._working = False

    def each(self, items: Iterable[T], action: Callable[[T], None]) -> None:
        """`action(item)` for each of `items`, in order and behind what waits; begun at once where the turn has time.

        `items` is read as it is worked on: hand over what does not change. When more than MAX_WAITING_WORKS wait, the
        first of them is finished now: the loop cannot keep up, and a queue without a bound would hide it.
        """
        if not self._waiting and isinstance(items, Sized) and len(items) <= FEW_AT_ONCE:
            _do(items, action)
            return
        self._waiting.append((iter(items), action))
        if self._working:  # an action has more to do
            return
        if self._until is None:
            self._until = self._clock() + TURN_SECS
            start_contained(self._tasks, self._go_on)
        self._work()
        while len(self._waiting) > MAX_WAITING_WORKS:
            _do(*self._waiting.popleft())

    @property
    def busy(self) -> bool:
        """Some work waits for its turn."""
        return bool(self._waiting)

    async def _go_on(self) -> None:
        """From the next turn on, until nothing waits."""
        try:
            while self._waiting:
                self._until = self._clock() + TURN_SECS
                self._work()
                await anyio.lowlevel.checkpoint()
        finally:
            self._until = None

    def _work(self) -> None:
        until = self._until or 0.0
        self._working = True
        try:
            while self._waiting and self._clock() < until:
                items, action = self._waiting[0]
                if _do(islice(items, AT_A_TIME), action) < AT_A_TIME:
                    self._waiting.popleft()
        finally:
            self._working = False


def _do(items: Iterable[T], action: Callable[[T], None]) -> int:
    """How many there were. A failure is contained: the others do not suffer."""
    count = 0
    for item in items:
        count += 1
        try:
            action(item)
        except Exception:
            log.exception("work for many sockets failed")
    return count


async def in_turns(items: Iterable[T], action: Callable[[T], None], clock: Callable[[], float]) -> None:
    """`action(item)` for each, and return when all is done; others have their turn after every `TURN_SECS`."""
    until = clock() + TURN_SECS
    for item in items:
        action(item)
        if clock() >= until:
            await anyio.lowlevel.checkpoint()
            until = clock() + TURN_SECS

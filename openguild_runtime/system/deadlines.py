"""Deadlines of waiting tasks, with one timer of the loop for all of them.

Every request needs several deadlines, and almost none expires. An anyio cancel scope costs a timer, a lookup of the backend and
a walk through scopes; a deadline here costs a dict entry.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Any

REPEAT_SECS = 0.01  # between two cancellations of a block that has not ended


class Deadline:
    """A `with` block in a task that is cancelled at `when`, in the loop's time, and then ends without an exception.

    Like an anyio scope, it is cancelled repeatedly until it ends, so that cleanup in it cannot wait either.
    """

    __slots__ = ("_cancelling", "_cancels", "_deadlines", "_task", "passed", "when")

    def __init__(self, deadlines: Deadlines, when: float) -> None:
        self.when = when
        self.passed = False
        self._deadlines = deadlines
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0  # the task's count of cancellations when the block began
        self._cancels = 0  # cancellations by this block

    def __enter__(self) -> Deadline:
        task = self._task = asyncio.current_task()
        if task is not None:
            self._cancelling = task.cancelling()
            self._deadlines.began(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._deadlines.ended(self)
        task, cancelling = self._task, self._cancelling
        self._task = None
        if not self.passed or task is None:
            return False
        for _ in range(self._cancels):
            cancelling = task.uncancel()
        return cancelling <= self._cancelling and kind is not None and issubclass(kind, asyncio.CancelledError)

    def cancel(self) -> None:
        """Expire now. Does nothing once the block has ended."""
        task = self._task
        if task is not None:
            self.passed = True
            self._cancels += 1
            task.cancel()
            asyncio.get_running_loop().call_later(REPEAT_SECS, self.cancel)


class Deadlines:
    """The deadlines of the tasks of one loop."""

    __slots__ = ("_begun", "_timer", "_timer_at")

    def __init__(self) -> None:
        self._begun: dict[Deadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def at(self, when: float) -> Deadline:
        """Return a block that is cancelled at `when`, in the time of `loop.time()`."""
        return Deadline(self, when)

    def after(self, secs: float) -> Deadline:
        """Return a block that is cancelled after `secs`."""
        return Deadline(self, asyncio.get_running_loop().time() + secs)

    def began(self, deadline: Deadline) -> None:
        """Watch a block; called when it begins."""
        self._begun[deadline] = None
        if deadline.when < self._timer_at:
            self._arm(deadline.when)

    def ended(self, deadline: Deadline) -> None:
        """Stop watching a block; called when it ends. The timer keeps running and is rearmed when it fires."""
        self._begun.pop(deadline, None)

    def _arm(self, when: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer, self._timer_at = None, math.inf
        now, earliest = asyncio.get_running_loop().time(), math.inf
        for deadline in list(self._begun):
            if deadline.when <= now:
                self.ended(deadline)
                deadline.cancel()
            else:
                earliest = min(earliest, deadline.when)
        if earliest < math.inf:
            self._arm(earliest)

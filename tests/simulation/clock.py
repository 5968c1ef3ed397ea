"""Simulated time: a heap of calls, each made at its time, and activities that wait for it.

An activity is a generator. It yields functions that get `resume` and call it once, later, with the value that the activity
waits for:

    def post(self) -> Activity[None]:
        yield clock.sleep(0.5)
        answer = yield cluster.sending(...)
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

Wait: TypeAlias = Callable[[Callable[[Any], None]], None]
Activity: TypeAlias = "Generator[Wait, Any, T]"


class Clock:
    """`now`: seconds since the beginning of the run. Calls at the same time are made in the order in which they were scheduled."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0  # number of calls made
        self._last = 0
        self._due: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []

    def at(self, when: float, call: Callable[..., Any], *arguments: Any) -> None:
        """Schedule a call at a time that has not passed."""
        self._last += 1
        heapq.heappush(self._due, (when, self._last, call, arguments))

    def later(self, secs: float, call: Callable[..., Any], *arguments: Any) -> None:
        """Schedule a call after `secs`; with 0, after all calls that are scheduled for this time already."""
        self._last += 1
        heapq.heappush(self._due, (self.now + secs, self._last, call, arguments))

    def run(self, until: float) -> None:
        """Make every call that is due up to `until`."""
        due = self._due
        while due and due[0][0] <= until:
            self.now, _, call, arguments = heapq.heappop(due)
            self.calls += 1
            call(*arguments)
        self.now = until

    # --- activities ----------------------------------------------------------------------------------

    def sleep(self, secs: float) -> Wait:
        """Return the function that an activity yields to wait for `secs`."""
        return lambda resume: self.later(secs, resume, None)

    def start(self, activity: Activity[Any]) -> None:
        """Begin an activity now, after all calls that are scheduled for this time already."""
        self.later(0.0, self._step, activity, None)

    def _step(self, activity: Activity[Any], value: Any) -> None:
        try:
            wait = activity.send(value)
        except StopIteration:
            return
        wait(lambda result: self._step(activity, result))

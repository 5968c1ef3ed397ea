"""Limits the time that one kind of work takes in each turn of the loop, so that many sockets do not stall the process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

import anyio
import anyio.lowlevel

from openguild_proto.limits import TURN_SECS

T = TypeVar("T")


class Turn:
    """A budget of `TURN_SECS` in each turn of the loop, shared by all users. `clock` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: float | None = None  # None until the first use in this turn

    def left(self) -> float:
        """Return the seconds left in this turn of the loop, which count from the first call in it."""
        now = self._clock()
        if self._until is None:
            self._until = now + TURN_SECS
            asyncio.get_running_loop().call_soon(self._end)
        return self._until - now

    def _end(self) -> None:
        self._until = None

    async def each(self, items: Iterable[T], action: Callable[[T], object]) -> None:
        """Call `action(item)` for each item, over several turns of the loop if necessary."""
        self.left()
        for item in items:
            action(item)
            if self.left() <= 0:
                await asyncio.sleep(0)
                self.left()


class TurnQueue:
    """Calls callbacks soon and in order, for `TURN_SECS` in each turn of the loop. `clock` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_due = False

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the next turn, or in a later one if too many wait."""
        self._waiting.append(callback)
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        until = self._clock() + TURN_SECS
        try:
            while self._waiting:
                self._waiting.popleft()()
                if self._clock() >= until:
                    break
        finally:
            self._is_due = bool(self._waiting)
            if self._is_due:
                asyncio.get_running_loop().call_soon(self._run)


class Pauses:
    """Pauses a long task after each `TURN_SECS` of work, so that other tasks run."""

    def __init__(self) -> None:
        self._until = anyio.current_time() + TURN_SECS

    async def pause_if_due(self) -> None:
        """Yield to the loop if the time is used up. Call this after each piece of work."""
        if anyio.current_time() >= self._until:
            await anyio.lowlevel.checkpoint()
            self._until = anyio.current_time() + TURN_SECS

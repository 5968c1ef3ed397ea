"""Limits the time that one kind of work takes of each turn of the loop, so that very many sockets stall nothing else."""

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
    """`TURN_SECS` of each turn of the loop, however often the work is taken up in it. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: float | None = None  # None: nothing was done in this turn yet

    def left(self) -> float:
        """Return the seconds that are left; the time begins to run with the first call in a turn."""
        now = self._clock()
        if self._until is None:
            self._until = now + TURN_SECS
            asyncio.get_running_loop().call_soon(self._end)
        return self._until - now

    def _end(self) -> None:
        self._until = None

    async def each(self, items: Iterable[T], action: Callable[[T], object]) -> None:
        """Do `action(item)` for each, in as many turns as it takes. Return when all is done."""
        self.left()
        for item in items:
            action(item)
            if self.left() <= 0:
                await asyncio.sleep(0)
                self.left()


class TurnQueue:
    """Calls callbacks soon and in order, those of `TURN_SECS` in each turn of the loop. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_due = False

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call it in the next turn, or in a later one if there are too many."""
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
    """Pauses a long task after each `TURN_SECS` of work, so that others run."""

    def __init__(self) -> None:
        self._until = anyio.current_time() + TURN_SECS

    async def pause_if_due(self) -> None:
        """Call it after each piece of the work."""
        if anyio.current_time() >= self._until:
            await anyio.lowlevel.checkpoint()
            self._until = anyio.current_time() + TURN_SECS

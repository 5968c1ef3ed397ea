"""The time that one kind of work takes of each turn of the loop, so that very many sockets hold nobody up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

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


class InTurns(Generic[T]):
    """Does `action(item)` for each item that is added, in their order, soon: as many in each turn of the loop as `TURN_SECS` have
    room for, at least one. `action` raises nothing. `clock`: monotonic seconds.
    """

    def __init__(self, action: Callable[[T], object], clock: Callable[[], float]) -> None:
        self._action = action
        self._clock = clock
        self._waiting: deque[T] = deque()
        self._runs = False  # in the next turn of the loop

    def add(self, item: T) -> None:
        """Have its turn come."""
        self._waiting.append(item)
        if not self._runs:
            self._runs = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        until = self._clock() + TURN_SECS
        while self._waiting:
            self._action(self._waiting.popleft())
            if self._waiting and self._clock() >= until:
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._runs = False


class Pauses:
    """For a task that does much in a row: after `TURN_SECS` of work others have their turn."""

    def __init__(self) -> None:
        self._until = anyio.current_time() + TURN_SECS

    async def pause_if_due(self) -> None:
        """Call it after each piece of the work."""
        if anyio.current_time() >= self._until:
            await anyio.lowlevel.checkpoint()
            self._until = anyio.current_time() + TURN_SECS

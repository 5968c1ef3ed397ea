"""Procedures: work that waits, written as one function and driven without a loop, a clock or a task.

A procedure is a generator that yields what it waits for: an effect (its result is sent back, or `StorageUnavailable` is
thrown in), a `Sleep`, or a `Signal`. `yield from` reads as `await` does. An operation is a procedure that yields effects only.

`Procedures` drives them. Its owner passes the time with each input and carries out the effects:

    procedures.now = now
    procedures.start(procedure, "what it does")
    while (query := procedures.take_query()) is not None: ...  # perform it, then answered(number, result) or failed(number, error)
    procedures.handle_deadline(now)                            # at next_deadline()
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

from openguild_proto.effects.base import Effect, StorageUnavailable

T = TypeVar("T")


class Sleep(NamedTuple):
    """Wait for `secs` seconds."""

    secs: float

    def wait(self) -> Procedure[None]:
        """Use as `yield from Sleep(1.0).wait()`."""
        yield self


class Signal:
    """An event that happens once; procedures wait for it with `yield from signal.wait()`."""

    __slots__ = ("_procedures", "is_set", "waiting")

    def __init__(self, procedures: Procedures) -> None:
        self.is_set = False
        self.waiting: list[_Running] = []
        self._procedures = procedures

    def set(self) -> None:
        """Set the signal: waiting procedures continue, within the same input."""
        if not self.is_set:
            self.is_set = True
            self._procedures.resume(self.waiting)
            self.waiting = []

    def wait(self) -> Procedure[None]:
        """Return when it has happened."""
        if not self.is_set:
            yield self


Procedure: TypeAlias = "Generator[Effect[Any] | Sleep | Signal, Any, T]"


class _Running:
    """A running procedure; `serial` identifies what it waits for, so that a late answer has no effect."""

    __slots__ = ("cancelled", "done", "generator", "serial", "what")

    def __init__(self, generator: Procedure[Any], what: str, done: Done | None) -> None:
        self.generator = generator
        self.what = what
        self.done = done
        self.cancelled = False
        self.serial = 0


Done: TypeAlias = Callable[[Any, "Exception | None"], None]
"""Called at the end of a procedure with its result, or with the exception that ended it."""


class Procedures:
    """Every procedure of one owner. `defect(what, failure)` is called for a procedure that failed unexpectedly.

    `StorageUnavailable` that ends a procedure is an outage, which its performer has reported, and not a defect.
    """

    def __init__(self, defect: Callable[[str, Exception], None]) -> None:
        self.now = 0.0  # monotonic seconds, set by the owner with each input
        self._defect = defect
        self._serial = 0
        self._asked: dict[int, _Running] = {}  # number of the query -> who waits for its answer
        self._queries: deque[tuple[int, Effect[Any]]] = deque()
        self._sleeping: list[tuple[float, int, _Running]] = []  # a heap
        self._ready: deque[tuple[_Running, Any, Exception | None]] = deque()
        self._is_running = False

    # --- inputs --------------------------------------------------------------------------------------

    def start(self, procedure: Procedure[Any], what: str, done: Done | None = None) -> Callable[[], None]:
        """Start a procedure, which runs until it waits. Return a function that cancels it (raises GeneratorExit where it waits).

        `done` is not called for a cancelled procedure.
        """
        running = _Running(procedure, what, done)
        self._ready.append((running, None, None))
        self._run()
        return lambda: self._cancel(running)

    def answered(self, number: int, result: Any) -> None:
        """The effect of this query was performed."""
        self._answer(number, result, None)

    def failed(self, number: int, error: Exception) -> None:
        """The effect of this query raised."""
        self._answer(number, None, error)

    def _answer(self, number: int, result: Any, error: Exception | None) -> None:
        running = self._asked.pop(number, None)
        if running is not None and running.serial == number:
            self._ready.append((running, result, error))
            self._run()

    def handle_deadline(self, now: float) -> None:
        """Wake procedures whose sleep is over; early calls do nothing."""
        self.now = max(self.now, now)
        while self._sleeping and self._sleeping[0][0] <= now:
            _, serial, running = heapq.heappop(self._sleeping)
            if running.serial == serial:
                self._ready.append((running, None, None))
        self._run()

    def resume(self, waiting: list[_Running]) -> None:
        """Called by a signal."""
        self._ready.extend((running, None, None) for running in waiting)
        self._run()

    # --- outputs -------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when `handle_deadline` is due, in monotonic seconds; None: nothing sleeps."""
        return self._sleeping[0][0] if self._sleeping else None

    def take_query(self) -> tuple[int, Effect[Any]] | None:
        """Return the next effect to perform, with the number for its answer."""
        return self._queries.popleft() if self._queries else None

    @property
    def idle(self) -> bool:
        """Return whether nothing waits for an answer."""
        return not self._asked

    # --- driving -------------------------------------------------------------------------------------

    def _run(self) -> None:
        if self._is_running:  # a procedure started another one, or set a signal: it comes to that below
            return
        self._is_running = True
        try:
            while self._ready:
                self._step(*self._ready.popleft())
        finally:
            self._is_running = False

    def _step(self, running: _Running, value: Any, error: Exception | None) -> None:
        if running.cancelled:  # while it waited for its turn
            return
        running.serial = -1
        try:
            wanted = running.generator.send(value) if error is None else running.generator.throw(error)
        except StopIteration as end:
            self._end(running, end.value, None)
        except StorageUnavailable as away:
            self._end(running, None, away)
        except Exception as failure:
            if running.done is None:
                self._defect(running.what, failure)
            self._end(running, None, failure)
        else:
            self._wait(running, wanted)

    def _wait(self, running: _Running, wanted: Effect[Any] | Sleep | Signal) -> None:
        self._serial += 1
        running.serial = self._serial
        match wanted:
            case Sleep(secs=secs):
                heapq.heappush(self._sleeping, (self.now + secs, self._serial, running))
            case Signal():
                wanted.waiting.append(running)
            case _:
                self._asked[self._serial] = running
                self._queries.append((self._serial, wanted))

    def _end(self, running: _Running, result: Any, error: Exception | None) -> None:
        if running.done is not None:
            running.done(result, error)

    def _cancel(self, running: _Running) -> None:
        running.serial = -1
        running.cancelled = True
        running.done = None
        running.generator.close()
        self._run()

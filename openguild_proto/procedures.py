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

from openguild_proto.deadlines import require_time
from openguild_proto.effects.base import Effect, StorageUnavailable

T = TypeVar("T")


class Sleep(NamedTuple):
    """Wait for `secs` seconds."""

    secs: float

    def wait(self) -> Procedure[None]:
        """Wait, as `yield from Sleep(1.0).wait()`."""
        yield self


class Signal:
    """A one-time signal. Procedures wait for it with `yield from signal.wait()`."""

    __slots__ = ("_procedures", "is_set", "waiting")

    def __init__(self, procedures: Procedures) -> None:
        self.is_set = False
        self.waiting: list[_Running] = []
        self._procedures = procedures

    def set(self) -> None:
        """Set the signal and resume the waiting procedures, within the same input. Idempotent."""
        if not self.is_set:
            self.is_set = True
            self._procedures.resume(self.waiting)
            self.waiting = []

    def wait(self) -> Procedure[None]:
        """Return when the signal is set."""
        if not self.is_set:
            yield self


Procedure: TypeAlias = "Generator[Effect[Any] | Sleep | Signal, Any, T]"


class _Running:
    """A running procedure. `serial` is the number of its current wait, so that a late answer is ignored."""

    __slots__ = ("cancelled", "done", "generator", "serial", "what")

    def __init__(self, generator: Procedure[Any], what: str, done: Done | None) -> None:
        self.generator = generator
        self.what = what
        self.done = done
        self.cancelled = False
        self.serial = 0


Done: TypeAlias = Callable[[Any, "Exception | None"], None]
"""Called when a procedure ends, with its result or the exception that ended it."""


class Procedures:
    """The procedures of one owner. `defect(what, failure)` is called when one without a `done` callback fails unexpectedly.

    A procedure that ends with `StorageUnavailable` is not a defect: the outage was reported when the effect was performed.
    """

    def __init__(self, defect: Callable[[str, Exception], None]) -> None:
        self.now = 0.0  # monotonic seconds, set by the owner with each input
        self._defect = defect
        self._serial = 0
        self._asked: dict[int, _Running] = {}  # by query number: the procedure that waits for the answer
        self._queries: deque[tuple[int, Effect[Any]]] = deque()
        self._sleeping: list[tuple[float, int, _Running]] = []  # a heap
        self._ready: deque[tuple[_Running, Any, Exception | None]] = deque()
        self._is_running = False

    # --- inputs --------------------------------------------------------------------------------------

    def start(self, procedure: Procedure[Any], what: str, done: Done | None = None) -> Callable[[], None]:
        """Start a procedure, which runs until it first waits. Returns a function that cancels it.

        Cancelling raises GeneratorExit where the procedure waits, and `done` is not called.
        """
        running = _Running(procedure, what, done)
        self._ready.append((running, None, None))
        self._run()
        return lambda: self._cancel(running)

    def answered(self, number: int, result: Any) -> None:
        """Resume the procedure that made this query with the result of its effect."""
        self._answer(number, result, None)

    def failed(self, number: int, error: Exception) -> None:
        """Raise `error` in the procedure that made this query."""
        self._answer(number, None, error)

    def _answer(self, number: int, result: Any, error: Exception | None) -> None:
        running = self._asked.pop(number, None)
        if running is not None and running.serial == number:
            self._ready.append((running, result, error))
            self._run()

    def handle_deadline(self, now: float) -> None:
        """Resume the procedures whose sleep is over. Early calls do nothing. Raises LocalProtocolError unless `now` is finite."""
        require_time(now)
        self.now = max(self.now, now)
        while self._sleeping and self._sleeping[0][0] <= now:
            _, serial, running = heapq.heappop(self._sleeping)
            if running.serial == serial:
                self._ready.append((running, None, None))
        self._run()

    def resume(self, waiting: list[_Running]) -> None:
        """Resume these procedures. Called by a signal."""
        self._ready.extend((running, None, None) for running in waiting)
        self._run()

    # --- outputs -------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return the end of the earliest sleep in monotonic seconds, or None."""
        return self._sleeping[0][0] if self._sleeping else None

    def take_query(self) -> tuple[int, Effect[Any]] | None:
        """Return the next effect to perform, with the number to answer it by, or None."""
        return self._queries.popleft() if self._queries else None

    @property
    def idle(self) -> bool:
        """Whether no effect is unanswered. Procedures may still sleep or wait for a signal."""
        return not self._asked

    # --- driving -------------------------------------------------------------------------------------

    def _run(self) -> None:
        if self._is_running:  # a procedure started another or set a signal; the loop below gets to it
            return
        self._is_running = True
        try:
            while self._ready:
                self._step(*self._ready.popleft())
        finally:
            self._is_running = False

    def _step(self, running: _Running, value: Any, error: Exception | None) -> None:
        if running.cancelled:  # while it was queued
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

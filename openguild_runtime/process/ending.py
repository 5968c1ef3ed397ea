"""The end of a process: who asked for it, what still has to end, and by when.

A first SIGTERM or SIGINT asks: after the drain's time and END_SECS the process is gone. A second one hurries: HURRY_SECS.
Everything that ends does so within a `limit`, a moment before that one; a limit moves when the process is hurried, and no
cancellation from outside gets through it. What does not end in its time is left: the kernel, the guard of a private server
and the other side of a connection see to the rest, and the exit status is 0 all the same.

Should all that not help, a thread says what did not end and leaves with the status UNENDED.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from signal import Signals
from typing import NoReturn

import anyio
import structlog

from openguild_runtime.observability import logs
from openguild_runtime.process.signals import ignore

END_SECS = 2.0  # beyond the drain's delay and window
HURRY_SECS = 1.0  # from a second signal
WORKER_SECS = 0.2  # that a worker is earlier than its supervisor, which ends it otherwise

# The moments of the end, in seconds before the process is gone.
CONNECTIONS_SECS = 1.2  # what still speaks to a client is cut
PARTS_SECS = 0.7  # database, NATS and collector of traces are left
WORKERS_SECS = 0.45  # workers that still live are killed: their own guards and last lines come WORKER_SECS earlier
SERVERS_SECS = 0.5  # private servers are left to their guards
GUARD_SECS = 0.4
FLUSH_SECS = 0.1  # for the last lines of the log
LEAVE_SECS = 0.2  # for the interpreter, once everything has ended

UNENDED = 3  # exit status
SHOWN_TASKS = 5

log = structlog.get_logger("openguild.shutdown")


class Ending:
    """`drain_secs`: how long connections may take, by the configuration. `scope` is cancelled when the end is asked for and
    nobody waits for that (`wait_asked`): nothing is served yet, so there is nothing to drain."""

    def __init__(self, drain_secs: float, *, ahead_secs: float = 0.0) -> None:
        self.asked = anyio.Event()
        self.hurried = anyio.Event()
        self.scope = anyio.CancelScope()
        self._drain_secs = drain_secs
        self._end_secs = END_SECS - ahead_secs
        self._hurry_secs = HURRY_SECS - ahead_secs
        self._gone_at = float("inf")  # monotonic seconds
        self._awaited = False
        self._limits: dict[anyio.CancelScope, float] = {}  # how long before the process is gone
        self._open: dict[str, None] = {}  # names of what has not ended
        self._guard = Guard(self._describe_left)

    async def follow(self, signals: AsyncIterator[Signals]) -> None:
        """Heed each of `signals`; until cancelled."""
        async for number in signals:
            log.info("shutdown signal received", signal=number.name)
            self.ask()

    def ask(self) -> None:
        """Begin to end; the second time, at once."""
        if self.asked.is_set():
            self.hurried.set()
            self._be_gone_in(self._hurry_secs)
        else:
            self.begin()

    def begin(self) -> None:
        """Begin to end; to repeat it changes nothing."""
        if not self.asked.is_set():
            self.asked.set()
            if self._awaited:
                self._be_gone_in(self._drain_secs + self._end_secs)
            else:
                self._be_gone_in(self._end_secs)
                self.scope.cancel()

    async def wait_asked(self) -> None:
        """Whoever waits here serves, and drains when this returns."""
        self._awaited = True
        await self.asked.wait()

    async def reached(self, before_secs: float) -> None:
        """Return `before_secs` before the process is to be gone."""
        await self.asked.wait()
        with anyio.CancelScope() as moment, self._moving(moment, before_secs):
            await anyio.sleep_forever()

    @contextmanager
    def limit(self, part: str, before_secs: float) -> Iterator[anyio.CancelScope]:
        """What ends `part`: it is given up `before_secs` before the process is gone. The end has begun, if nobody asked for it."""
        self.begin()
        self._open[part] = None
        try:
            with anyio.CancelScope(shield=True) as scope, self._moving(scope, before_secs):
                yield scope
        finally:
            del self._open[part]
        if scope.cancelled_caught:
            log.warning("a part did not end in time and was left", part=part)

    async def close(
        self, part: str, close: Callable[[], Awaitable[None]], cut: Callable[[], None] | None = None
    ) -> None:
        """`close()` within a limit, whatever shields it has of its own; `cut()` ends at once what it could not. Never raises."""
        task = asyncio.ensure_future(close())
        with self.limit(part, PARTS_SECS):
            await asyncio.wait({task})
        if not task.done():
            task.cancel()
            if cut is not None:
                cut()
        elif not task.cancelled() and (failure := task.exception()) is not None:
            log.error("a part did not end in order", part=part, kind=type(failure).__name__)

    def over(self, status: int) -> None:
        """Everything has ended: only the interpreter has not."""
        self._guard.watch(min(time.monotonic() + LEAVE_SECS, self._gone_at - GUARD_SECS), status)

    def _be_gone_in(self, secs: float) -> None:
        self._gone_at = min(self._gone_at, time.monotonic() + secs)
        self._guard.watch(self._gone_at - GUARD_SECS, UNENDED)
        for scope, before_secs in self._limits.items():
            scope.deadline = self._deadline(before_secs)

    @contextmanager
    def _moving(self, scope: anyio.CancelScope, before_secs: float) -> Iterator[None]:
        scope.deadline = self._deadline(before_secs)
        self._limits[scope] = before_secs
        try:
            yield
        finally:
            del self._limits[scope]

    def _deadline(self, before_secs: float) -> float:
        return anyio.current_time() + self._gone_at - before_secs - time.monotonic()

    def _describe_left(self) -> list[str]:
        return list(self._open)


@asynccontextmanager
async def ended_by_signals(ending: Ending) -> AsyncIterator[AsyncIterator[Signals]]:
    """Around all that a process does: SIGTERM and SIGINT lead to `ending`; yields the SIGHUPs. Afterwards none of them matters."""
    try:
        with (
            anyio.open_signal_receiver(Signals.SIGHUP) as hangups,
            anyio.open_signal_receiver(Signals.SIGTERM, Signals.SIGINT) as ends,
        ):
            async with anyio.create_task_group() as following:
                following.start_soon(ending.follow, ends)
                with ending.scope:
                    yield hangups
                following.cancel_scope.cancel()
    finally:
        ignore(Signals.SIGHUP)  # the receivers' end gave them their defaults back
        if ending.asked.is_set():
            ignore(Signals.SIGTERM, Signals.SIGINT)


class Guard:
    """Ends the process when it did not end by itself: a thread, which no waiting task and no held loop can keep from it."""

    def __init__(self, describe_left: Callable[[], list[str]]) -> None:
        self._describe_left = describe_left
        self._until = float("inf")
        self._status = UNENDED
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, until: float, status: int) -> None:
        """At `until`, in monotonic seconds, leave with `status`."""
        self._until, self._status = until, status
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            threading.Thread(target=self._run, args=(self._loop,), name="end of the process", daemon=True).start()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while (left := self._until - time.monotonic()) > 0:
            time.sleep(min(left, 0.02))
        if self._status == UNENDED:
            log.error("the process did not end in time", left=self._describe_left() or _tasks_of(loop), status=UNENDED)
        logs.flush(FLUSH_SECS)
        os._exit(self._status)


def leave(status: int) -> NoReturn:
    """End the process after everything in it has ended: to take down the interpreter with all its objects costs up to a second."""
    logs.flush()
    os._exit(status)


def _tasks_of(loop: asyncio.AbstractEventLoop) -> list[str]:
    with suppress(RuntimeError):  # the set changes while it is looked through
        return sorted({task.get_name().rpartition("openguild_runtime.")[2] for task in asyncio.all_tasks(loop)})[
            :SHOWN_TASKS
        ]
    return []

"""Shutdown of a process: the requests, the parts that are still closing, and their deadlines.

The first SIGTERM or SIGINT requests shutdown: the process exits after the drain's time and SHUTDOWN_SECS. A second signal
forces it: the process exits after FORCED_SECS. Each part closes under a `deadline`, counted back from the exit. Forcing the
shutdown moves all deadlines. Cancellation from outside does not interrupt a closing part. A part that misses its deadline is
abandoned, and the exit status is still 0: the kernel and the guards of the private servers clean up.

If the process still hangs, the watchdog logs what did not finish and exits with the status TIMED_OUT.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from signal import Signals

import anyio
import structlog

from openguild_runtime.process.signals import ignore, take_held
from openguild_runtime.process.watchdog import TIMED_OUT, Watchdog

SHUTDOWN_SECS = 2.0  # after the drain's delay and window
FORCED_SECS = 1.0  # after a second signal
WORKER_HEAD_START_SECS = 0.2  # a worker exits this much before its supervisor would kill it

# Deadlines, in seconds before the process exits.
CONNECTIONS_SECS = 1.2  # open client connections are aborted
PARTS_SECS = 0.7  # PostgreSQL, NATS and the trace exporter are abandoned
WORKERS_SECS = 0.5  # running workers are killed; their own watchdogs fire WORKER_HEAD_START_SECS earlier
SERVERS_SECS = 0.5  # private servers are left to their guards
WATCHDOG_SECS = 0.4  # the watchdog exits
INTERPRETER_SECS = 0.2  # for the interpreter to exit after everything has closed

log = structlog.get_logger("openguild.shutdown")


class Shutdown:
    """Coordinates the shutdown of this process.

    `drain_secs` is the configured time for connections to drain. Before `wait_requested` was called, the server does not
    serve and has nothing to drain, so a request cancels `scope`.
    """

    def __init__(self, drain_secs: float, *, head_start_secs: float = 0.0) -> None:
        self.requested = anyio.Event()
        self.forced = anyio.Event()
        self.scope = anyio.CancelScope()
        self._drain_secs = drain_secs
        self._shutdown_secs = SHUTDOWN_SECS - head_start_secs
        self._forced_secs = FORCED_SECS - head_start_secs
        self._exit_at = float("inf")  # monotonic seconds
        self._serving = False
        self._deadlines: dict[anyio.CancelScope, float] = {}  # seconds before the exit
        self._unfinished: dict[str, None] = {}  # names of the parts that are closing
        self._watchdog = Watchdog(self._list_unfinished)

    async def follow(self, signals: AsyncIterator[Signals]) -> None:
        """Request shutdown at each of `signals`, until cancelled."""
        async for number in signals:
            log.info("shutdown signal received", signal=number.name)
            self.request()

    def request(self) -> None:
        """Begin the shutdown; a second call forces it."""
        if self.requested.is_set():
            self.forced.set()
            self._set_exit_in(self._forced_secs)
        else:
            self.begin()
            if not self._serving:
                self.scope.cancel()

    def begin(self) -> None:
        """Begin the shutdown. Idempotent. Cancels nothing, so that a failure that caused it is reported."""
        if not self.requested.is_set():
            self.requested.set()
            self._set_exit_in(self._shutdown_secs + (self._drain_secs if self._serving else 0.0))

    async def wait_requested(self) -> None:
        """Wait for a request. The caller serves connections and drains them when this returns."""
        self._serving = True
        await self.requested.wait()

    async def wait_until(self, before_secs: float) -> None:
        """Wait until `before_secs` before the exit."""
        await self.requested.wait()
        with anyio.CancelScope() as moment, self._keep_deadline(moment, before_secs):
            await anyio.sleep_forever()

    @contextmanager
    def deadline(self, part: str, before_secs: float) -> Iterator[anyio.CancelScope]:
        """Run the closing of `part`; cancel it `before_secs` before the exit. Begins the shutdown if nothing requested it."""
        self.begin()
        self._unfinished[part] = None
        try:
            with anyio.CancelScope(shield=True) as scope, self._keep_deadline(scope, before_secs):
                yield scope
        finally:
            del self._unfinished[part]
        if scope.cancelled_caught:
            log.warning("a component did not stop in time and was abandoned", part=part)

    async def close(
        self, part: str, close: Callable[[], Awaitable[None]], abort: Callable[[], None] | None = None
    ) -> None:
        """Await `close()` under a deadline, even if it shields itself; after the deadline call `abort()`. Never raises."""
        task = asyncio.ensure_future(close())
        with self.deadline(part, PARTS_SECS):
            await asyncio.wait({task})
        if not task.done():
            task.cancel()
            if abort is not None:
                abort()
        elif not task.cancelled() and (failure := task.exception()) is not None:
            log.error("a component failed to stop cleanly", part=part, kind=type(failure).__name__)

    def finish(self, status: int) -> None:
        """Give the interpreter INTERPRETER_SECS to exit, after everything has closed."""
        self._watchdog.watch(min(time.monotonic() + INTERPRETER_SECS, self._exit_at - WATCHDOG_SECS), status)

    def _set_exit_in(self, secs: float) -> None:
        self._exit_at = min(self._exit_at, time.monotonic() + secs)
        self._watchdog.watch(self._exit_at - WATCHDOG_SECS, TIMED_OUT)
        for scope, before_secs in self._deadlines.items():
            scope.deadline = self._deadline_of(before_secs)

    @contextmanager
    def _keep_deadline(self, scope: anyio.CancelScope, before_secs: float) -> Iterator[None]:
        scope.deadline = self._deadline_of(before_secs)
        self._deadlines[scope] = before_secs
        try:
            yield
        finally:
            del self._deadlines[scope]

    def _deadline_of(self, before_secs: float) -> float:
        return anyio.current_time() + self._exit_at - before_secs - time.monotonic()

    def _list_unfinished(self) -> list[str]:
        return list(self._unfinished)


async def _with_held(hangups: AsyncIterator[Signals]) -> AsyncIterator[Signals]:
    """Yield a held SIGHUP, if any, then `hangups`."""
    if take_held(Signals.SIGHUP):
        yield Signals.SIGHUP
    async for hangup in hangups:
        yield hangup


@asynccontextmanager
async def handle_signals(shutdown: Shutdown) -> AsyncIterator[AsyncIterator[Signals]]:
    """Request `shutdown` at SIGTERM and SIGINT, and yield the SIGHUPs, including a held one.

    A held SIGHUP counts because it may have come after the configuration was read. Afterwards the process ignores these signals.
    """
    try:
        with (
            anyio.open_signal_receiver(Signals.SIGHUP) as hangups,
            anyio.open_signal_receiver(Signals.SIGTERM, Signals.SIGINT) as ends,
        ):
            async with anyio.create_task_group() as following:
                following.start_soon(shutdown.follow, ends)
                if take_held(Signals.SIGTERM):
                    shutdown.request()
                with shutdown.scope:
                    yield _with_held(hangups)
                following.cancel_scope.cancel()
    finally:
        ignore(Signals.SIGHUP)  # closing the receivers restored the default handlers
        if shutdown.requested.is_set():
            ignore(Signals.SIGTERM, Signals.SIGINT)

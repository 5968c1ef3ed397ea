"""The end of a process: who asked for it, what still has to end, and by when.

A first SIGTERM or SIGINT asks: after the drain's time and SHUTDOWN_SECS the process is gone. A second one hurries: FORCED_SECS.
Everything that ends does so within a `limit`, a moment before that one; a limit moves when the process is forced, and no
cancellation from outside gets through it. What does not end in its time is left: the kernel, the guard of a private server
and the other side of a connection see to the rest, and the exit status is 0 all the same.

Should all that not help, a thread says what did not end and leaves with the status TIMED_OUT.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from signal import Signals

import anyio
import structlog

from openguild_runtime.process.signals import ignore
from openguild_runtime.process.watchdog import TIMED_OUT, Watchdog

SHUTDOWN_SECS = 2.0  # beyond the drain's delay and window
FORCED_SECS = 1.0  # from a second signal
WORKER_HEAD_START_SECS = 0.2  # that a worker is earlier than its supervisor, which ends it otherwise

# The moments of the end, in seconds before the process is gone.
CONNECTIONS_SECS = 1.2  # what still speaks to a client is cut
PARTS_SECS = 0.7  # database, NATS and collector of traces are left
WORKERS_SECS = (
    0.45  # workers that still live are killed: their own guards and last lines come WORKER_HEAD_START_SECS earlier
)
SERVERS_SECS = 0.5  # private servers are left to their guards
WATCHDOG_SECS = 0.4
INTERPRETER_SECS = 0.2  # for the interpreter, once everything has ended


log = structlog.get_logger("openguild.shutdown")


class Shutdown:
    """`drain_secs`: how long connections may take, by the configuration. `scope` is cancelled when the end is asked for and
    nobody waits for that (`wait_requested`): nothing is served yet, so there is nothing to drain."""

    def __init__(self, drain_secs: float, *, head_start_secs: float = 0.0) -> None:
        self.requested = anyio.Event()
        self.forced = anyio.Event()
        self.scope = anyio.CancelScope()
        self._drain_secs = drain_secs
        self._shutdown_secs = SHUTDOWN_SECS - head_start_secs
        self._forced_secs = FORCED_SECS - head_start_secs
        self._exit_at = float("inf")  # monotonic seconds
        self._serving = False
        self._deadlines: dict[anyio.CancelScope, float] = {}  # how long before the process is gone
        self._unfinished: dict[str, None] = {}  # names of what has not ended
        self._watchdog = Watchdog(self._list_unfinished)

    async def follow(self, signals: AsyncIterator[Signals]) -> None:
        """Heed each of `signals`; until cancelled."""
        async for number in signals:
            log.info("shutdown signal received", signal=number.name)
            self.request()

    def request(self) -> None:
        """Begin to end; the second time, at once."""
        if self.requested.is_set():
            self.forced.set()
            self._set_exit_in(self._forced_secs)
        else:
            self.begin()

    def begin(self) -> None:
        """Begin to end; to repeat it changes nothing."""
        if not self.requested.is_set():
            self.requested.set()
            if self._serving:
                self._set_exit_in(self._drain_secs + self._shutdown_secs)
            else:
                self._set_exit_in(self._shutdown_secs)
                self.scope.cancel()

    async def wait_requested(self) -> None:
        """Whoever waits here serves, and drains when this returns."""
        self._serving = True
        await self.requested.wait()

    async def wait_until(self, before_secs: float) -> None:
        """Return `before_secs` before the process is to be gone."""
        await self.requested.wait()
        with anyio.CancelScope() as moment, self._keep_deadline(moment, before_secs):
            await anyio.sleep_forever()

    @contextmanager
    def deadline(self, part: str, before_secs: float) -> Iterator[anyio.CancelScope]:
        """What ends `part`: it is given up `before_secs` before the process is gone. The end has begun, if nobody asked for it."""
        self.begin()
        self._unfinished[part] = None
        try:
            with anyio.CancelScope(shield=True) as scope, self._keep_deadline(scope, before_secs):
                yield scope
        finally:
            del self._unfinished[part]
        if scope.cancelled_caught:
            log.warning("a part did not end in time and was left", part=part)

    async def close(
        self, part: str, close: Callable[[], Awaitable[None]], abort: Callable[[], None] | None = None
    ) -> None:
        """`close()` within a limit, whatever shields it has of its own; `cut()` ends at once what it could not. Never raises."""
        task = asyncio.ensure_future(close())
        with self.deadline(part, PARTS_SECS):
            await asyncio.wait({task})
        if not task.done():
            task.cancel()
            if abort is not None:
                abort()
        elif not task.cancelled() and (failure := task.exception()) is not None:
            log.error("a part did not end in order", part=part, kind=type(failure).__name__)

    def finish(self, status: int) -> None:
        """Everything has ended: only the interpreter has not."""
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


@asynccontextmanager
async def handle_signals(shutdown: Shutdown) -> AsyncIterator[AsyncIterator[Signals]]:
    """Around all that a process does: SIGTERM and SIGINT lead to `ending`; yields the SIGHUPs. Afterwards none of them matters."""
    try:
        with (
            anyio.open_signal_receiver(Signals.SIGHUP) as hangups,
            anyio.open_signal_receiver(Signals.SIGTERM, Signals.SIGINT) as ends,
        ):
            async with anyio.create_task_group() as following:
                following.start_soon(shutdown.follow, ends)
                with shutdown.scope:
                    yield hangups
                following.cancel_scope.cancel()
    finally:
        ignore(Signals.SIGHUP)  # the receivers' end gave them their defaults back
        if shutdown.requested.is_set():
            ignore(Signals.SIGTERM, Signals.SIGINT)

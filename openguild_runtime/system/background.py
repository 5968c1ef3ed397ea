"""Background tasks, whose failures are logged and do not end the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup

log = structlog.get_logger("openguild.background")


@contextmanager
def log_exceptions(what: str, *expected: type[Exception]) -> Iterator[None]:
    """Log exceptions of the body and suppress them. For one turn of an endless loop, or for one callback.

    `expected` exceptions are outages that their source has logged already; they are logged at debug level. Any other
    exception is a bug and is logged with its traceback. Cancellation is not suppressed.
    """
    try:
        yield
    except expected as failure:
        log.debug(f"{what}: put off", kind=type(failure).__name__)
    except Exception:
        log.exception(f"{what}: failed")


def start_background_task(tasks: TaskGroup, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    """Run `function(*arguments)` in `tasks`. Exceptions are logged with their traceback."""
    tasks.start_soon(_log_exceptions_of, function, arguments)


async def _log_exceptions_of(function: Callable[..., Awaitable[None]], arguments: tuple[Any, ...]) -> None:
    try:
        await function(*arguments)
    except Exception:
        log.exception("a background task failed", task=getattr(function, "__qualname__", repr(function)))


class ThrottledTask:
    """Runs `function` in `tasks` on request, one run at a time, with at least `every_secs` between two runs.

    The first request starts a run at once. All requests during a run or a pause lead to one more run.
    """

    def __init__(self, tasks: TaskGroup, function: Callable[[], Awaitable[None]], every_secs: float) -> None:
        self._tasks = tasks
        self._function = function
        self._every_secs = every_secs
        self._requested = False
        self._running = False

    def request(self) -> None:
        self._requested = True
        if not self._running:
            self._running = True
            self._tasks.start_soon(self._run)

    async def _run(self) -> None:
        try:
            while self._requested:
                self._requested = False
                await _log_exceptions_of(self._function, ())
                await anyio.sleep(self._every_secs)
        finally:
            self._running = False

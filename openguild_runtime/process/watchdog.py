"""Exits the process when its shutdown hangs."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import structlog

from openguild_runtime.observability import logs

TIMED_OUT = 3  # exit status
FLUSH_SECS = 0.3  # for the last log lines; part of WATCHDOG_SECS
MAX_LISTED_TASKS = 5

log = structlog.get_logger("openguild.shutdown")


class Watchdog:
    """Exits the process at a deadline. It runs on a thread, so that a blocked event loop cannot stop it."""

    def __init__(self, list_unfinished: Callable[[], list[str]]) -> None:
        self._list_unfinished = list_unfinished
        self._until = float("inf")
        self._status = TIMED_OUT
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, until: float, status: int) -> None:
        """Exit with `status` at `until` (monotonic seconds)."""
        self._until, self._status = until, status
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            threading.Thread(target=self._run, args=(self._loop,), name="end of the process", daemon=True).start()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while (left := self._until - time.monotonic()) > 0:
            time.sleep(min(left, 0.02))
        if self._status == TIMED_OUT:
            log.error(
                "the process did not exit in time", left=self._list_unfinished() or _tasks_of(loop), status=TIMED_OUT
            )
        logs.flush(FLUSH_SECS)
        os._exit(self._status)


def exit_process(status: int) -> NoReturn:
    """Exit after everything has closed, without tearing down the interpreter, which takes up to a second."""
    logs.flush()
    os._exit(status)


def _tasks_of(loop: asyncio.AbstractEventLoop) -> list[str]:
    with suppress(RuntimeError):  # the set changes during the iteration
        return sorted({task.get_name().rpartition("openguild_runtime.")[2] for task in asyncio.all_tasks(loop)})[
            :MAX_LISTED_TASKS
        ]
    return []

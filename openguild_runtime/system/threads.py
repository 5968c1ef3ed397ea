"""Blocking work on threads of its own that nobody has to wait for: neither a task that is cancelled nor the end of the process.

The library's worker threads are for what is short: both wait for those.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress


def start_thread(work: Callable[[], None]) -> asyncio.Future[None]:
    """Begin `work()`; the future has its outcome, whether or not anybody looks at that."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def settle(failure: BaseException | None) -> None:
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)

    def run() -> None:
        outcome: BaseException | None = None
        try:
            work()
        except BaseException as failure:  # for whoever waits for the future
            outcome = failure
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name=getattr(work, "__qualname__", None), daemon=True).start()
    return future


async def wait_for_thread(future: asyncio.Future[None]) -> None:
    """Return when the work is done; raises what it raised. One that is cancelled leaves the thread to itself."""
    await asyncio.wait({future})
    future.result()

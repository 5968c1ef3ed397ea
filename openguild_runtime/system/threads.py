"""Blocking work on daemon threads, for which neither a cancelled task nor the exit of the process waits.

Both wait for anyio's worker threads, which are for short work.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress


def start_thread(work: Callable[[], None]) -> asyncio.Future[None]:
    """Run `work()` on a new thread and return a future of its outcome, which may be ignored."""
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
        except BaseException as failure:  # reported through the future
            outcome = failure
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name=getattr(work, "__qualname__", None), daemon=True).start()
    return future


async def wait_for_thread(future: asyncio.Future[None]) -> None:
    """Wait until the work is done, and raise its exception. Cancellation does not stop the thread."""
    await asyncio.wait({future})
    future.result()

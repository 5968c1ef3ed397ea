"""Places of a semaphore, for which callers wait a limited time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from openguild_proto.effects import Overloaded
from openguild_runtime.storage.postgres.pool import Pool
from openguild_runtime.storage.postgres.values import Connection
from openguild_runtime.system.deadlines import Deadlines

T = TypeVar("T")

PLACE_LIMIT_SECS = 5.0  # for a shared connection: half of a request's time, then `overloaded`


async def wait_for_place(places: anyio.Semaphore, deadlines: Deadlines) -> None:
    """Take a place of the semaphore. Raises Overloaded if none is free in time."""
    with deadlines.after(PLACE_LIMIT_SECS):
        await places.acquire()
        return
    raise Overloaded


async def lend_in_turn(
    pool: Pool,
    places: anyio.Semaphore,
    use: Callable[[Connection], Awaitable[T]],
    *,
    writes: bool = False,
    limit_secs: float | None = None,
) -> T:
    """Run `use` with a connection within a place of the semaphore, for each of which the pool has one."""
    try:
        places.acquire_nowait()
    except anyio.WouldBlock:
        await wait_for_place(places, pool.deadlines)
    try:
        return await pool.lend(use, writes=writes, limit_secs=limit_secs)
    finally:
        places.release()

"""Slots for which callers wait for a limited time: those of a semaphore, and those shared fairly by users."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from openguild_proto.effects import Overloaded
from openguild_proto.policy.fair_turns import FairTurns
from openguild_runtime.storage.postgres.pool import Pool
from openguild_runtime.storage.postgres.values import Connection
from openguild_runtime.system.deadlines import Deadlines

T = TypeVar("T")

SLOT_LIMIT_SECS = 5.0  # half of a request's time; then `overloaded`


async def wait_for_slot(slots: anyio.Semaphore, deadlines: Deadlines) -> None:
    """Take a slot of the semaphore. Raises Overloaded if none is free in time."""
    with deadlines.after(SLOT_LIMIT_SECS):
        await slots.acquire()
        return
    raise Overloaded


async def lend_in_turn(
    pool: Pool,
    slots: anyio.Semaphore,
    use: Callable[[Connection], Awaitable[T]],
    *,
    writes: bool = False,
    limit_secs: float | None = None,
) -> T:
    """Run `use` with a connection, holding a slot of the semaphore. Raises Overloaded if none is free in time."""
    try:
        slots.acquire_nowait()
    except anyio.WouldBlock:
        await wait_for_slot(slots, pool.deadlines)
    try:
        return await pool.lend(use, writes=writes, limit_secs=limit_secs)
    finally:
        slots.release()


class FairSlots:
    """`count` slots, of which each user may hold `each` at a time. The user "" stands for none, and may hold all."""

    def __init__(self, count: int, each: int = 1) -> None:
        self._turns: FairTurns[asyncio.Future[None]] = FairTurns(count, each)

    @property
    def free(self) -> int:
        """The number of free slots."""
        return self._turns.free

    async def run(self, user_id: str, use: Callable[[], Awaitable[T]], deadlines: Deadlines) -> T:
        """Run `use` holding a slot of the user. Raises Overloaded if none is free in time."""
        await self.enter(user_id, deadlines)
        try:
            return await use()
        finally:
            self.leave(user_id)

    async def enter(self, user_id: str, deadlines: Deadlines) -> None:
        """Take a slot of the user, to be returned with `leave`. Raises Overloaded if none is free in time."""
        if not self._turns.begin(user_id):
            await self._wait(user_id, deadlines)

    async def _wait(self, user_id: str, deadlines: Deadlines) -> None:
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.wait(user_id, ticket)
        try:
            with deadlines.after(SLOT_LIMIT_SECS):
                await ticket
                return
            raise Overloaded
        except BaseException:
            if ticket.done() and not ticket.cancelled():  # got the slot at the moment of the cancellation
                self.leave(user_id)
            self._turns.give_up(user_id, ticket)
            raise

    def leave(self, user_id: str) -> None:
        """Return a slot of the user."""
        turn = self._turns.leave(user_id)
        while turn is not None and turn.ticket.done():  # cancelled, but its task has not run yet
            turn = self._turns.leave(turn.user_id)
        if turn is not None:
            turn.ticket.set_result(None)

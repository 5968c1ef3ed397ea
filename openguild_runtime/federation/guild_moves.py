"""Drives moves of this server's guilds to other servers, step by step, across restarts (PROTOCOL 16.10)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import anyio
import structlog

from openguild_proto.effects import Operation, StorageUnavailable
from openguild_proto.effects.federation import PeerUnavailable
from openguild_proto.effects.handovers import ListMoves, Move
from openguild_proto.operations.context import Context
from openguild_proto.operations.handing_over import drive_move
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.background import log_exceptions

T = TypeVar("T")

LOOK_SECS = 60.0  # between two checks for moves that another process has begun
STEP_SECS = 0.5  # between two steps of a move
PUT_OFF_SECS = 10.0  # between two steps, after STEADY_STEPS steps without progress
STEADY_STEPS = 20

log = structlog.get_logger("openguild.federation")


class Run(Protocol):
    """A function that runs an operation to its end."""

    def __call__(self, operation: Operation[T]) -> Awaitable[T]:
        """Return the result of `operation`. Its exceptions are raised unchanged."""


class GuildMoves:
    """Drives all moves. Every process does so, because every step may be repeated."""

    def __init__(
        self, *, storage: Storage, run: Run, context: Callable[[], Context], is_on: Callable[[], bool]
    ) -> None:
        self._storage = storage
        self._run = run
        self._context = context
        self._is_on = is_on
        self._wake = anyio.Event()
        self._notes: tuple[str, ...] = ()
        self._steady = 0

    def wake(self) -> None:
        """Take the next steps now."""
        self._wake.set()

    async def run_forever(self) -> None:
        """Take steps until cancelled."""
        while True:
            self._wake, pause = anyio.Event(), LOOK_SECS
            with log_exceptions("moving guilds", StorageUnavailable):
                pause = await self._step() if self._is_on() else LOOK_SECS
            with anyio.move_on_after(pause):
                await self._wake.wait()

    async def _step(self) -> float:
        """Take one step of every move, and return the seconds until the next one."""
        moves = await self._storage.perform(ListMoves())
        for move in moves:
            await self._take(move)
        if not moves:
            return LOOK_SECS
        notes = tuple(move.note for move in moves)
        self._steady = self._steady + 1 if notes == self._notes else 0
        self._notes = notes
        return STEP_SECS if self._steady < STEADY_STEPS else PUT_OFF_SECS

    async def _take(self, move: Move) -> None:
        try:
            goes_on = await self._run(drive_move(self._context(), move))
        except PeerUnavailable as failure:
            log.info("a guild is not moved yet", guild_id=move.guild_id, to=move.to, reason=failure.reason)
            return
        if not goes_on:
            log.warning("a guild has moved to another server", guild_id=move.guild_id, to=move.to)

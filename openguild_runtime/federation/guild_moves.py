"""Moves guilds of this server to other servers step by step, also after a restart (PROTOCOL 16.10)."""

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

LOOK_SECS = 60.0  # between two checks for moves that another process has started
STEP_SECS = 0.5  # between two steps of a move
PUT_OFF_SECS = 10.0  # between two steps, after STEADY_STEPS steps without a change
STEADY_STEPS = 20

log = structlog.get_logger("openguild.federation")


class Run(Protocol):
    """Runs an operation to its end."""

    def __call__(self, operation: Operation[T]) -> Awaitable[T]:
        """Return the operation's result. Raises what the operation raises."""


class GuildMoves:
    """Advances the moves. Every process advances every move, so each step may be taken twice."""

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
        """Advance the moves now."""
        self._wake.set()

    async def run_forever(self) -> None:
        """Advance the moves until cancelled."""
        while True:
            self._wake, pause = anyio.Event(), LOOK_SECS
            with log_exceptions("moving guilds", StorageUnavailable):
                pause = await self._step() if self._is_on() else LOOK_SECS
            with anyio.move_on_after(pause):
                await self._wake.wait()

    async def _step(self) -> float:
        """Advance every move by one step. Return the seconds until the next step."""
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

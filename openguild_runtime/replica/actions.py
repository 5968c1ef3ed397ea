"""Carries out one action of the replica: a query, a message to the other replicas, a flush, a replay, a closing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import structlog
from anyio.abc import TaskGroup

from openguild_proto.effects.base import Effect, StorageEffect, StorageUnavailable
from openguild_proto.effects.performs import collect, performs
from openguild_proto.effects.replica import SubscribeChannels, UnsubscribeChannels
from openguild_proto.errors import ErrorCode
from openguild_proto.replica.actions import (
    AnyAction,
    Close,
    Flush,
    Haste,
    Log,
    Prepared,
    Publish,
    PublishControl,
    Query,
    Replay,
)
from openguild_proto.replica.notifications import USER_RING
from openguild_proto.replica.replica import Replica
from openguild_runtime.bus.base import REQUEST_ID, Bus
from openguild_runtime.net.flusher import Flusher
from openguild_runtime.net.transport import Transport
from openguild_runtime.observability.tracing import Tracing
from openguild_runtime.replica.replays import Replays
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.background import start_background_task

log = structlog.get_logger("openguild.replica")


class ActionPerformer:
    """One per replica. `tickets`: who waits for a `Prepared`; `has_ended`: nothing is asked of the store any more."""

    def __init__(
        self,
        replica: Replica,
        replays: Replays,
        flusher: Flusher,
        *,
        storage: Storage,
        bus: Bus,
        tasks: TaskGroup,
        clock: Callable[[], float],
        carry_out: Callable[[], None],
        tracing: Tracing | None,
    ) -> None:
        self.tickets: dict[int, asyncio.Future[ErrorCode | None]] = {}
        self.has_ended = False
        self._replica = replica
        self._replays = replays
        self._flusher = flusher
        self._storage = storage
        self._bus = bus
        self._tasks = tasks
        self._clock = clock
        self._carry_out = carry_out
        self._tracing = tracing

    def do(self, action: AnyAction) -> None:
        """Carry it out, or begin to; never waits."""
        match action:
            case Flush(ring=ring, haste=haste):
                self._flush(ring, haste)
            case Publish():
                self._publish(action)
            case PublishControl(payload=payload):
                self._bus.publish_control(payload)
            case Query() if self.has_ended:
                self._replica.failed(action.number, StorageUnavailable(), now=self._clock())
            case Query():
                start_background_task(self._tasks, self._answer, action)
            case Close(socket=socket, code=code, reason=reason, missed=missed):
                transport = cast("Transport", socket)
                if missed is not None:
                    log.info("stream lagged", missed=missed, **transport.described)
                transport.close(code, reason)
            case Replay(socket=socket):
                self._replays.resume(socket)
            case Prepared(ticket=ticket, refusal=refusal):
                future = self.tickets.pop(ticket, None)
                if future is not None and not future.done():
                    future.set_result(refusal)
            case Log(level=level, message=message, fields=fields, failure=failure):
                getattr(log, level.value)(message, **fields, exc_info=failure)

    def _publish(self, action: Publish) -> None:
        headers = {REQUEST_ID: action.request_id}
        if self._tracing is None:
            self._bus.publish_channel(action.channel_id, action.payload, headers)
            return
        with self._tracing.step("publish"):
            self._bus.publish_channel(action.channel_id, action.payload, headers | self._tracing.carrier())

    def _flush(self, ring: str, haste: Haste) -> None:
        if self._tracing is not None and not ring.startswith(USER_RING):
            self._tracing.flush_started(ring)
        if haste is Haste.SOON:
            self._flusher.mark(ring)
        else:
            self._flusher.hurry(ring, completely=haste is Haste.COMPLETELY)

    async def _answer(self, query: Query) -> None:
        try:
            result = await self._perform(query.effect)
        except Exception as failure:  # the replica knows what it means
            self._replica.failed(query.number, failure, now=self._clock())
        except BaseException:  # the process ends: whatever waits for the answer hears of it
            self._replica.failed(query.number, StorageUnavailable(), now=self._clock())
            self._carry_out()
            raise
        else:
            self._replica.answered(query.number, result, now=self._clock())
        self._carry_out()

    async def _perform(self, effect: Effect[Any]) -> Any:
        if isinstance(effect, StorageEffect):
            return await self._storage.perform(effect)
        performed = PERFORMERS.get(type(effect))
        if performed is None:
            raise TypeError(f"no performer for effect {type(effect).__name__}")
        return await performed.function(self, effect)

    @performs(SubscribeChannels)
    async def _subscribe(self, effect: SubscribeChannels) -> None:
        for channel_id in effect.channel_ids:
            await self._bus.subscribe_channel(channel_id)

    @performs(UnsubscribeChannels)
    async def _unsubscribe(self, effect: UnsubscribeChannels) -> None:
        for channel_id in effect.channel_ids:
            await self._bus.unsubscribe_channel(channel_id)


PERFORMERS = collect(ActionPerformer)
"""Which method performs which effect that is not the store's."""

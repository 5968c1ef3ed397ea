"""Performs the actions of the core's replica: queries, messages to other replicas, flushes, replays and closes.

After each input, the first few actions are performed at once, the rest for `TURN_SECS` of each turn of the loop, so that
work for many sockets does not stall the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import anyio
import structlog
from anyio.abc import TaskGroup

from openguild_proto.effects.base import StorageEffect, StorageUnavailable
from openguild_proto.effects.performs import collect, performs
from openguild_proto.effects.replica import SubscribeChannels, UnsubscribeChannels
from openguild_proto.hints import AnyHint
from openguild_proto.limits import FEW_AT_ONCE
from openguild_proto.records import ControlRecord, StoredEvent
from openguild_proto.replica.actions import AnyAction, Query
from openguild_proto.replica.replica import Replica
from openguild_runtime.bus.base import Bus
from openguild_runtime.net.flusher import Flusher
from openguild_runtime.net.ring_flush import GatewayRings, StreamRings
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.observability.tracing import Tracing
from openguild_runtime.replica.action_performer import ActionPerformer
from openguild_runtime.replica.from_bus import FromBus
from openguild_runtime.replica.gateway_sockets import GatewaySockets
from openguild_runtime.replica.stream_sockets import StreamSockets
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.background import start_background_task
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from openguild_runtime.system.turns import Turn

AT_A_TIME = 8  # actions between two checks of the clock
LOOK_SECS = 1.0  # how late a change of the wall clock is noticed

log = structlog.get_logger("openguild.replica")


class ReplicaRunner:
    """Runs the replica of a process: passes inputs to it and performs its actions."""

    def __init__(
        self,
        replica: Replica,
        *,
        storage: Storage,
        bus: Bus,
        metrics: Metrics,
        tasks: TaskGroup,
        sources: ClocksAndEntropy,
        tracing: Tracing | None = None,
    ) -> None:
        self.replica = replica
        self.flusher = Flusher(metrics, sources.monotonic, self.flush_ended, tracing)
        self.gateway = GatewaySockets(replica, sources.monotonic, self.perform_actions)
        self.from_bus = FromBus(replica, sources.monotonic, self.perform_actions, tracing)
        self.streams = StreamSockets(replica, sources, self.perform_actions)
        gateway_rings = GatewayRings(replica.gateway.feeds, self.gateway.transports)
        self.actions = ActionPerformer(
            self.flusher, StreamRings(replica.hub), gateway_rings, bus, self.streams, tracing
        )
        self._storage = storage
        self._bus = bus
        self._tasks = tasks
        self._clock = sources.monotonic
        self._wall = sources.wall
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None  # not always a TimerHandle: uvloop returns a Handle for a delay of 0
        self._timer_deadline = 0.0
        self._turn = Turn(sources.monotonic)
        self._goes_on = False  # `_go_on` is scheduled
        self._is_carrying_out = False
        self._has_ended = False

    # --- inputs --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Flush rings and share limits until cancelled. Afterwards, queries fail and no timer is set."""
        self.replica.share_limits(now=self._clock())
        self.perform_actions()
        try:
            await self.flusher.run()
        finally:
            self._has_ended = True
            if self._timer is not None:
                self._timer.cancel()

    async def start(self) -> None:
        """Read the initial state from the store. Raises StorageUnavailable; the caller retries."""
        ended: asyncio.Future[Exception | None] = self._loop.create_future()

        def done(_: object, error: Exception | None) -> None:
            if not ended.done():
                ended.set_result(error)

        self.replica.run(self.replica.start(), "the start of the replica", done, now=self._clock())
        self.perform_actions()
        if (error := await ended) is not None:
            raise error

    def follow(self) -> None:
        """Begin to check the tails of the logs."""
        self.replica.follow(now=self._clock())
        self.perform_actions()

    def committed(self, event: StoredEvent, request_id: str) -> None:
        """Publish a channel event that this replica stored."""
        self.replica.committed(event, request_id, now=self._clock())
        self.perform_actions()

    def stored(self, record: ControlRecord) -> None:
        """Apply a control record that this replica stored."""
        self.replica.stored(record, now=self._clock())
        self.perform_actions()

    def log_grew(self, event: StoredEvent) -> None:
        """Publish an event that this replica stored in a guild's or a user's log."""
        self.replica.log_grew(event, now=self._clock())
        self.perform_actions()

    def announce(self, hint: AnyHint) -> None:
        """Publish an ephemeral hint of a client, such as typing, which may be lost."""
        self.replica.announce(hint, now=self._clock())
        self.perform_actions()

    def keys_replaced(self, trusts: Callable[[bytes], bool]) -> None:
        """Apply a changed key ring: `trusts` tells whether a key is still trusted."""
        self.replica.keys_replaced(trusts, now=self._clock())
        self.perform_actions()

    def drain(self, window_secs: float) -> None:
        """Close the streams in waves over `window_secs`, so that they reconnect to other replicas."""
        self.replica.drain(window_secs, now=self._clock())
        self.perform_actions()

    def flush_ended(self) -> None:
        """Handle readers that a round of flushes may have overrun."""
        self.replica.flushed(now=self._clock())
        self.perform_actions()

    # --- actions -------------------------------------------------------------------------------------

    def perform_actions(self) -> None:
        """Perform the actions of the replica: a few at once, more while the turn has time.

        Long-running work that continues in the next turn is left to it, even if more inputs arrive in this one.
        """
        if self._is_carrying_out:  # called by an action; the loop below performs the new actions
            return
        self._is_carrying_out = True
        try:
            if self._goes_on:
                self._take(FEW_AT_ONCE, works=False)
            elif self._take(FEW_AT_ONCE):
                return
            while self._turn.left() > 0 or self.replica.is_pressed:
                if self._take(AT_A_TIME):
                    return
            if not self._goes_on:
                self._goes_on = True
                self._loop.call_soon(self._go_on)
        finally:
            self._is_carrying_out = False
            self._arm()

    def _go_on(self) -> None:
        self._goes_on = False
        self.perform_actions()

    def _take(self, count: int, *, works: bool = True) -> bool:
        """Perform up to `count` actions; return True if none is left."""
        for _ in range(count):
            action = self.replica.next_action(works=works)
            if action is None:
                return True
            try:
                self._do(action)
            except Exception:  # one action's failure must not end the others
                log.exception("an action failed", action=type(action).__name__)
        return False

    def _do(self, action: AnyAction) -> None:
        """Perform an action, or start a task for a query of the store. Never waits."""
        if not isinstance(action, Query):
            self.actions.perform(action)
        elif self._has_ended:
            self.replica.failed(action.number, StorageUnavailable(), now=self._clock())
        elif (performed := PERFORMERS.get(type(action.effect))) is not None:
            self.replica.answered(action.number, performed.function(self, action.effect), now=self._clock())
        else:
            start_background_task(self._tasks, self._answer, action)

    # --- queries -------------------------------------------------------------------------------------

    async def _answer(self, query: Query) -> None:
        try:
            result = await self._storage.perform(cast("StorageEffect[Any]", query.effect))
        except Exception as failure:  # the replica decides what to do
            self.replica.failed(query.number, failure, now=self._clock())
        except BaseException:  # at shutdown, the query's waiters must not hang
            self.replica.failed(query.number, StorageUnavailable(), now=self._clock())
            raise
        else:
            self.replica.answered(query.number, result, now=self._clock())
        finally:
            self.perform_actions()

    @performs(SubscribeChannels)
    def _subscribe(self, effect: SubscribeChannels) -> None:
        self._bus.subscribe(effect.channel_ids)

    @performs(UnsubscribeChannels)
    def _unsubscribe(self, effect: UnsubscribeChannels) -> None:
        self._bus.unsubscribe(effect.channel_ids)

    # --- time ----------------------------------------------------------------------------------------

    def _arm(self) -> None:
        deadline = self.replica.next_deadline()
        if deadline is None or self._has_ended:
            return
        if self._timer is not None:
            if self._timer_deadline <= deadline:
                return
            self._timer.cancel()
        self._timer_deadline = deadline
        self._timer = self._loop.call_later(max(0.0, deadline - self._clock()), self._due)

    def _due(self) -> None:
        self._timer = None
        now = self._clock()
        self.replica.bus_state(self._bus.connected, limits_delivered=self._bus.limits_delivered, now=now)
        self.replica.handle_deadline(now=now)
        self.perform_actions()

    async def watch_wall_clock(self, every_secs: float = LOOK_SECS) -> None:
        """Report the wall clock until cancelled, so that streams end with their tokens even if the clock is set."""
        while True:
            self.replica.wall_clock(self._wall(), now=self._clock())
            self.perform_actions()
            await anyio.sleep(every_secs)

    # --- getters -------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether an action or a ring waits for the next turn of the loop."""
        return self._goes_on or self.flusher.busy


PERFORMERS = collect(ReplicaRunner)
"""The methods that perform effects outside of the store, by effect."""

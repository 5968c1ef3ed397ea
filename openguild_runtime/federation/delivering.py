"""Carries out what the core's `Deliveries` decides: reads of the store, requests to peers, hints to the other replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import msgspec
import structlog
from anyio.abc import TaskGroup

from openguild_proto.bus.topics import Topic
from openguild_proto.delivery.actions import AnyAction, Log, Query, Tell
from openguild_proto.delivery.deliveries import Deliveries
from openguild_proto.delivery.peer_delivery import PeerDelivery
from openguild_proto.delivery.shared import Counters
from openguild_proto.effects.base import StorageEffect, StorageUnavailable
from openguild_proto.effects.federation import AskPeer, PeerAnswer
from openguild_proto.hints import PEER_HINTS, decode_hint, encode_hint
from openguild_proto.records import ControlRecord, StoredEvent
from openguild_runtime.bus.base import Bus, BusHandler
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.background import start_background_task
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy

log = structlog.get_logger("openguild.federation")


class DeliveryRunner:
    """Runs the deliveries of a process. `ask` sends a signed request. Does nothing before `start`, or while federation is off."""

    def __init__(
        self,
        deliveries: Deliveries,
        *,
        storage: Storage,
        ask: Callable[[AskPeer], Awaitable[PeerAnswer]],
        bus: Bus,
        tasks: TaskGroup,
        sources: ClocksAndEntropy,
        is_on: Callable[[], bool] = lambda: True,
    ) -> None:
        self._is_on = is_on
        self._deliveries = deliveries
        self._storage = storage
        self._ask = ask
        self._bus = bus
        self._tasks = tasks
        self._sources = sources
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None  # uvloop returns a plain handle for a delay of 0
        self._timer_deadline = 0.0
        self._is_ready = False
        self._has_started = False
        self._is_carrying_out = False

    # --- inputs --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start to deliver: the store can be used."""
        self._is_ready = True
        self._runs()

    def grew(self, log_id: str, event: StoredEvent | None = None) -> None:
        """This process has stored an event. Pass the event itself if you have it."""
        if self._runs():
            self._at_now().grew(log_id, event)
            self._carry_out()

    def recorded(self, record: ControlRecord) -> None:
        """This process has stored a record of the control log."""
        if self._runs():
            self._at_now().recorded(record)
            self._carry_out()

    def after(self, committed: Callable[[StoredEvent, str], None]) -> Callable[[StoredEvent, str], None]:
        """Return a function that passes an event of a channel to `committed`, and then reports that its log has grown."""

        def noted(event: StoredEvent, request_id: str) -> None:
            committed(event, request_id)
            self.grew(event.log_id, event)

        return noted

    def heard(self, payload: bytes) -> None:
        """Another replica has sent a hint about peers."""
        if not self._runs():
            return
        try:
            hint = decode_hint(payload)
        except msgspec.DecodeError:
            log.warning("a hint of another replica on peers is malformed")
            return
        self._at_now().heard(hint)
        self._carry_out()

    def reconnected(self) -> None:
        """Note that the bus was down: look for events whose hints were lost."""
        if self._runs():
            self._deliveries.bus_state(connected=False)
            self._at_now()
            self._carry_out()

    def contacted(self, server: str) -> None:
        """This process has received a signed request of a peer."""
        if self._runs():
            self._at_now().contacted(server)
            self._carry_out()

    def drain(self) -> None:
        """Stop the deliveries, and leave them to other processes."""
        self._is_ready = False
        if self._has_started:
            self._at_now().drain()
            self._carry_out()

    def delivery_to(self, server: str) -> PeerDelivery | None:
        """Return the delivery to a server, or None if another process delivers to it or no delivery is needed."""
        return self._deliveries.peers.get(server)

    def counters(self) -> list[tuple[str, Counters]]:
        """Return the counters of the peers that this process delivers to, by server."""
        return [(server, peer.counters) for server, peer in sorted(self._deliveries.peers.items())]

    def _runs(self) -> bool:
        """Return whether deliveries have started. Starts them if a new configuration has turned federation on."""
        if not self._has_started and self._is_ready and self._is_on():
            self._has_started = True
            self._at_now().start()
            self._carry_out()
        return self._has_started

    def _at_now(self) -> Deliveries:
        self._deliveries.at(self._sources.monotonic(), int(self._sources.wall() * 1_000))
        self._deliveries.bus_state(connected=self._bus.connected)
        return self._deliveries

    # --- actions -------------------------------------------------------------------------------------

    def _carry_out(self) -> None:
        if self._is_carrying_out:  # an action has caused an input: the outer call handles it
            return
        self._is_carrying_out = True
        try:
            while (action := self._deliveries.next_action()) is not None:
                self._do(action)
        finally:
            self._is_carrying_out = False
            self._arm()

    def _do(self, action: AnyAction) -> None:
        """Carry out an action, or start to. Never waits."""
        match action:
            case Query():
                start_background_task(self._tasks, self._answer, action)
            case Tell(hint=hint):
                self._bus.broadcast(Topic.HINTS, encode_hint(hint))
            case Log(level=level, message=message, fields=fields, failure=failure):
                getattr(log, level.value)(message, **fields, exc_info=failure)

    async def _answer(self, query: Query) -> None:
        effect = query.effect
        try:
            if isinstance(effect, AskPeer):
                result: Any = await self._ask(effect)
            else:
                result = await self._storage.perform(cast("StorageEffect[Any]", effect))
        except Exception as failure:  # the deliveries handle it
            self._at_now().failed(query.number, failure)
        except BaseException:  # the process ends: the waiting procedure gets the error
            self._at_now().failed(query.number, StorageUnavailable())
            raise
        else:
            self._at_now().answered(query.number, result)
        finally:
            self._carry_out()

    # --- time ----------------------------------------------------------------------------------------

    def _arm(self) -> None:
        deadline = self._deliveries.next_deadline()
        if deadline is None or not self._has_started:
            return
        if self._timer is not None:
            if self._timer_deadline <= deadline:
                return
            self._timer.cancel()
        self._timer_deadline = deadline
        self._timer = self._loop.call_later(max(0.0, deadline - self._sources.monotonic()), self._due)

    def _due(self) -> None:
        self._timer = None
        self._at_now().handle_deadline()
        self._carry_out()


class PeerHints:
    """Passes other replicas' hints about peers to `heard`, and all other messages of the bus to `handler`."""

    def __init__(self, handler: BusHandler, heard: Callable[[bytes], None], reconnected: Callable[[], None]) -> None:
        self._handler = handler
        self._heard = heard
        self._reconnected = reconnected

    def probe(self, topic: Topic) -> bytes:
        """Return a message that has no effect."""
        return self._handler.probe(topic)

    def channel_message(self, channel_id: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Pass it on."""
        self._handler.channel_message(channel_id, payload, headers)

    def broadcast_message(self, topic: Topic, payload: bytes) -> None:
        """Pass it on to the handler that it concerns."""
        if topic is Topic.HINTS and payload.startswith(PEER_HINTS):
            self._heard(payload)
        else:
            self._handler.broadcast_message(topic, payload)

    def bus_answered(self) -> None:
        """Pass it on."""
        self._handler.bus_answered()

    def bus_reconnected(self) -> None:
        """Pass it on, to both."""
        self._handler.bus_reconnected()
        self._reconnected()

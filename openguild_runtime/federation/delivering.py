"""Performs the actions of the core's `Deliveries`: reads of the store, requests to peers, hints to other replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import msgspec
import structlog
from anyio.abc import TaskGroup

from openguild_proto.bus.topics import Topic
from openguild_proto.delivery.actions import AnyAction, Log, Query, SendHint
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
    """The deliveries of a process. `ask` sends a signed request. Nothing happens before `start` and until federation `is_on`."""

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
        self._timer: asyncio.Handle | None = None  # not always a TimerHandle: uvloop returns a Handle for a delay of 0
        self._timer_deadline = 0.0
        self._is_ready = False
        self._has_started = False
        self._is_carrying_out = False

    # --- inputs --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to deliver, once the store can be used."""
        self._is_ready = True
        self._runs()

    def grew(self, log_id: str, event: StoredEvent | None = None) -> None:
        """Note that this process has stored an event in a log. `event` saves reading it again."""
        if self._runs():
            self._at_now().grew(log_id, event)
            self._perform_actions()

    def recorded(self, record: ControlRecord) -> None:
        """Note that this process has stored a control record."""
        if self._runs():
            self._at_now().recorded(record)
            self._perform_actions()

    def after(self, committed: Callable[[StoredEvent, str], None]) -> Callable[[StoredEvent, str], None]:
        """Return a function that passes a channel event to `committed`, and then calls `grew`."""

        def noted(event: StoredEvent, request_id: str) -> None:
            committed(event, request_id)
            self.grew(event.log_id, event)

        return noted

    def on_hint(self, payload: bytes) -> None:
        """Handle a hint of another replica about peers."""
        if not self._runs():
            return
        try:
            hint = decode_hint(payload)
        except msgspec.DecodeError:
            log.warning("a hint of another replica on peers is malformed")
            return
        self._at_now().hint_received(hint)
        self._perform_actions()

    def reconnected(self) -> None:
        """Look for growth that was missed while the bus was down."""
        if self._runs():
            self._deliveries.bus_state(connected=False)
            self._at_now()
            self._perform_actions()

    def contacted(self, server: str) -> None:
        """Note that a signed request of a peer was received."""
        if self._runs():
            self._at_now().contacted(server)
            self._perform_actions()

    def drain(self) -> None:
        """End the deliveries and leave them to other processes."""
        self._is_ready = False
        if self._has_started:
            self._at_now().drain()
            self._perform_actions()

    def delivery_to(self, server: str) -> PeerDelivery | None:
        """Return the delivery to a server, or None if another process delivers to it or nothing has to be delivered."""
        return self._deliveries.peers.get(server)

    def counters(self) -> list[tuple[str, Counters]]:
        """Return the counters of the peers that this process delivers to, sorted by server."""
        return [(server, peer.counters) for server, peer in sorted(self._deliveries.peers.items())]

    def _runs(self) -> bool:
        """Return whether deliveries have begun, and begin them once the configuration turns them on."""
        if not self._has_started and self._is_ready and self._is_on():
            self._has_started = True
            self._at_now().start()
            self._perform_actions()
        return self._has_started

    def _at_now(self) -> Deliveries:
        self._deliveries.at(self._sources.monotonic(), int(self._sources.wall() * 1_000))
        self._deliveries.bus_state(connected=self._bus.connected)
        return self._deliveries

    # --- actions -------------------------------------------------------------------------------------

    def _perform_actions(self) -> None:
        if self._is_carrying_out:  # called by an action; the loop below performs the new actions
            return
        self._is_carrying_out = True
        try:
            while (action := self._deliveries.next_action()) is not None:
                self._do(action)
        finally:
            self._is_carrying_out = False
            self._arm()

    def _do(self, action: AnyAction) -> None:
        """Perform an action, or start a task for a query. Never waits."""
        match action:
            case Query():
                start_background_task(self._tasks, self._answer, action)
            case SendHint(hint=hint):
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
        except Exception as failure:  # the deliveries decide what to do
            self._at_now().failed(query.number, failure)
        except BaseException:  # at shutdown, the query's waiters must not hang
            self._at_now().failed(query.number, StorageUnavailable())
            raise
        else:
            self._at_now().answered(query.number, result)
        finally:
            self._perform_actions()

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
        self._perform_actions()


class PeerHints:
    """Passes other replicas' hints about peers to `on_hint`, and everything else from the bus to `handler`."""

    def __init__(self, handler: BusHandler, on_hint: Callable[[bytes], None], reconnected: Callable[[], None]) -> None:
        self._handler = handler
        self._on_hint = on_hint
        self._reconnected = reconnected

    def probe(self, topic: Topic) -> bytes:
        """Return a message without effect."""
        return self._handler.probe(topic)

    def channel_message(self, channel_id: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Pass a channel event to the handler."""
        self._handler.channel_message(channel_id, payload, headers)

    def broadcast_message(self, topic: Topic, payload: bytes) -> None:
        """Pass a hint about peers to `on_hint`, any other message to the handler."""
        if topic is Topic.HINTS and payload.startswith(PEER_HINTS):
            self._on_hint(payload)
        else:
            self._handler.broadcast_message(topic, payload)

    def bus_answered(self) -> None:
        """Pass the call to the handler."""
        self._handler.bus_answered()

    def bus_reconnected(self) -> None:
        """Pass the call to the handler and to `reconnected`."""
        self._handler.bus_reconnected()
        self._reconnected()

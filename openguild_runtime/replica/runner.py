"""Carries out what the core's replica decides: queries, messages to other replicas, flushes, replays and closings.

After each input the replica's actions are taken: the first few at once, more of them for `TURN_SECS` of each turn of the loop, so
that what concerns very many sockets holds nobody up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, cast

import anyio
import structlog
from anyio.abc import TaskGroup

from openguild_proto.bus.topics import Topic
from openguild_proto.effects.base import StorageEffect, StorageUnavailable
from openguild_proto.effects.performs import collect, performs
from openguild_proto.effects.replica import SubscribeChannels, UnsubscribeChannels
from openguild_proto.errors import ErrorCode
from openguild_proto.gateway.actions import AnyAction as SocketAction
from openguild_proto.hints import AnyHint
from openguild_proto.http.message import OpenStream
from openguild_proto.limits import FEW_AT_ONCE
from openguild_proto.records import ControlRecord, StoredEvent
from openguild_proto.replica.actions import (
    AnyAction,
    Broadcast,
    Close,
    ExpireAt,
    Flush,
    FlushFeed,
    Haste,
    Join,
    Log,
    Prepared,
    Publish,
    Query,
    Replay,
)
from openguild_proto.replica.gateway import GatewaySocket
from openguild_proto.replica.notifications import USER_RING
from openguild_proto.replica.replica import Replica
from openguild_runtime.bus.base import REQUEST_ID, Bus
from openguild_runtime.net.flusher import Flusher
from openguild_runtime.net.ring_flush import GatewayRings, StreamRings
from openguild_runtime.net.transport import Transport
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.observability.tracing import Tracing
from openguild_runtime.replica.feeding import ReplicaFeeder
from openguild_runtime.replica.stream_tickets import StreamTickets
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.background import start_background_task
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from openguild_runtime.system.turns import Turn

AT_A_TIME = 8  # actions between two looks at the clock
LOOK_SECS = 1.0  # a wall clock that was set is noticed this late

log = structlog.get_logger("openguild.replica")


class ReplicaRunner:
    """One per process, on one loop."""

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
        self.gateway_transports: dict[int, Transport] = {}  # by descriptor
        self._stream_rings = StreamRings(replica.hub)
        self._gateway_rings = GatewayRings(replica.gateway.feeds, self.gateway_transports)
        self._storage = storage
        self._bus = bus
        self._tasks = tasks
        self._clock = sources.monotonic
        self._wall = sources.wall
        self._tracing = tracing
        self._loop = asyncio.get_running_loop()
        self._feeder = ReplicaFeeder(replica, sources.monotonic, self.carry_out)
        self._tickets = StreamTickets(replica, sources.monotonic, self.carry_out)
        self._timer: asyncio.Handle | None = None  # uvloop gives a plain handle where there is nothing to wait for
        self._timer_deadline = 0.0
        self._turn = Turn(sources.monotonic)
        self._goes_on = False  # in the next turn
        self._is_carrying_out = False
        self._has_ended = False

    # --- inputs --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Flush rings and share limits, until cancelled; after that nothing is asked of the store and no timer is set."""
        self.replica.share_limits(now=self._clock())
        self.carry_out()
        try:
            await self.flusher.run()
        finally:
            self._has_ended = True
            if self._timer is not None:
                self._timer.cancel()

    async def start(self) -> None:
        """Read where everything stands. Raises StorageUnavailable: try again."""
        ended: asyncio.Future[Exception | None] = self._loop.create_future()

        def done(_: object, error: Exception | None) -> None:
            if not ended.done():
                ended.set_result(error)

        self.replica.run(self.replica.start(), "the start of the replica", done, now=self._clock())
        self.carry_out()
        if (error := await ended) is not None:
            raise error

    def follow(self) -> None:
        """From now on the tails are checked."""
        self.replica.follow(now=self._clock())
        self.carry_out()

    def committed(self, event: StoredEvent, request_id: str) -> None:
        """This replica stored an event."""
        self.replica.committed(event, request_id, now=self._clock())
        self.carry_out()

    def stored(self, record: ControlRecord) -> None:
        """This replica made a change that has a control record."""
        self.replica.stored(record, now=self._clock())
        self.carry_out()

    def log_grew(self, event: StoredEvent) -> None:
        """This replica stored an event of the log of a guild or a user."""
        self.replica.log_grew(event, now=self._clock())
        self.carry_out()

    def announce(self, hint: AnyHint) -> None:
        """A client of this replica does what others may miss."""
        self.replica.announce(hint, now=self._clock())
        self.carry_out()

    def keys_replaced(self, trusts: Callable[[bytes], bool]) -> None:
        """The key ring has changed."""
        self.replica.keys_replaced(trusts, now=self._clock())
        self.carry_out()

    def drain(self, window_secs: float) -> None:
        """Send the streams elsewhere, in waves."""
        self.replica.drain(window_secs, now=self._clock())
        self.carry_out()

    def flush_streams(self, ring: str, haste: Haste) -> None:
        """A ring of streams has frames that some subscriber has not got."""
        self.flusher.flush(ring, haste, self._stream_rings)

    def flush_ended(self) -> None:
        """A round of flushes: the rings may have overrun some readers."""
        self.replica.flushed(now=self._clock())
        self.carry_out()

    # --- what the bus brings -------------------------------------------------------------------------

    def channel_message(self, channel_id: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Another replica stored an event; its request's id finds both logs."""
        log.debug("event from another replica", channel_id=channel_id, request_id=headers.get(REQUEST_ID))
        with self._tracing.continue_trace(headers) if self._tracing is not None else nullcontext():
            self.replica.heard(channel_id, payload, now=self._clock())
            self.carry_out()

    def broadcast_message(self, topic: Topic, payload: bytes) -> None:
        """What another replica tells all."""
        self.replica.heard_broadcast(topic, payload, now=self._clock())
        self.carry_out()

    def probe(self, topic: Topic) -> bytes:
        """A message without effect."""
        return self.replica.probe(topic)

    def bus_answered(self) -> None:
        """The wire has taken what was published before."""
        self.replica.wire_answered(now=self._clock())

    def bus_reconnected(self) -> None:
        """The wire was away: whatever it lost is in the log."""
        self.replica.catch_up(now=self._clock())
        self.carry_out()

    # --- streams -------------------------------------------------------------------------------------

    async def prepare(self, stream: OpenStream, deadline: float) -> ErrorCode | None:
        """Make this replica hear what the stream needs, by `deadline` on the loop's clock. Returns why it is refused, None:
        `join` or `abandon` it."""
        return await self._tickets.prepare(stream, deadline)

    def abandon(self, stream: OpenStream) -> None:
        """A prepared stream is not joined."""
        self.replica.abandon(stream, now=self._clock())
        self.carry_out()

    def join(self, transport: Transport, stream: OpenStream, changes: int) -> None:
        """The upgrade was accepted; `changes`: the count when access was checked."""
        transport.feeder = self._feeder
        handle = transport.socket.fileno()
        self.replica.join(transport, stream, handle=handle, changes=changes, wall=self._wall(), now=self._clock())
        if transport.connection.is_open and (transport.subscriber is None or not transport.subscriber.replaying):
            transport.settle()  # the response goes first; with a replay it leaves with the first page
        self.carry_out()

    def leave(self, transport: Transport) -> None:
        """The socket is going."""
        self.replica.leave(transport, now=self._clock())
        self.carry_out()

    # --- the gateway ---------------------------------------------------------------------------------

    def for_gateway(self, socket: GatewaySocket, action: SocketAction) -> None:
        """Carry out an action of a gateway socket that is about logs."""
        self.replica.gateway_at(self._clock()).do(socket, action)
        self.carry_out()

    def open_gateway(self, transport: Transport, socket: GatewaySocket) -> None:
        """The upgrade was accepted."""
        self.gateway_transports[transport.socket.fileno()] = transport
        self.replica.gateway.opened(socket)

    def gateway_authenticated(self, socket: GatewaySocket) -> None:
        """The socket has a token."""
        self.replica.gateway_at(self._clock()).authenticated(socket)
        self.carry_out()

    def leave_gateway(self, transport: Transport, socket: GatewaySocket) -> None:
        """The socket is going."""
        del self.gateway_transports[transport.socket.fileno()]
        self.replica.gateway_at(self._clock()).left(socket)
        self.carry_out()

    # --- actions -------------------------------------------------------------------------------------

    def carry_out(self) -> None:
        """Take the actions of the replica: a few at once, more while the turn has time."""
        if self._is_carrying_out:  # an action was an input again: it comes to that below
            return
        self._is_carrying_out = True
        try:
            if self._take(FEW_AT_ONCE):
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
        self.carry_out()

    def _take(self, count: int) -> bool:
        """Carry out up to `count` actions. True: nothing is left."""
        for _ in range(count):
            action = self.replica.next_action()
            if action is None:
                return True
            try:
                self._do(action)
            except Exception:  # contained: the others do not suffer
                log.exception("an action failed", action=type(action).__name__)
        return False

    def _do(self, action: AnyAction) -> None:
        """Carry it out, or begin to; never waits."""
        match action:
            case Flush(ring=ring, haste=haste):
                if self._tracing is not None and not ring.startswith(USER_RING):
                    self._tracing.flush_started(ring)
                self.flush_streams(ring, haste)
            case FlushFeed(key=key, haste=haste):
                self.flusher.flush(key, haste, self._gateway_rings)
            case Publish():
                self._publish(action)
            case Broadcast(topic=topic, payload=payload):
                self._bus.broadcast(topic, payload)
            case Join(database=database):
                self._bus.join(database)
            case Query() if self._has_ended:
                self.replica.failed(action.number, StorageUnavailable(), now=self._clock())
            case Query(number=number, effect=effect) if (performed := PERFORMERS.get(type(effect))) is not None:
                self.replica.answered(number, performed.function(self, effect), now=self._clock())
            case Query():
                start_background_task(self._tasks, self._answer, action)
            case Close(socket=socket, code=code, reason=reason, missed=missed):
                transport = cast("Transport", socket)
                if missed is not None:
                    log.info("stream lagged", missed=missed, **transport.described)
                transport.close(code, reason)
            case ExpireAt(socket=socket, deadline=deadline, code=code, reason=reason):
                socket.expire_at(deadline, code, reason)
            case Replay(socket=socket):
                socket.replay()
            case Prepared(ticket=ticket, refusal=refusal):
                self._tickets.prepared(ticket, refusal)
            case Log(level=level, message=message, fields=fields, failure=failure):
                getattr(log, level.value)(message, **fields, exc_info=failure)

    def _publish(self, action: Publish) -> None:
        headers = {REQUEST_ID: action.request_id} if action.request_id else {}
        if self._tracing is None:
            self._bus.publish_channel(action.channel_id, action.payload, headers)
            return
        with self._tracing.step("publish"):
            self._bus.publish_channel(action.channel_id, action.payload, headers | self._tracing.carrier())

    # --- queries -------------------------------------------------------------------------------------

    async def _answer(self, query: Query) -> None:
        try:
            result = await self._storage.perform(cast("StorageEffect[Any]", query.effect))
        except Exception as failure:  # the replica knows what it means
            self.replica.failed(query.number, failure, now=self._clock())
        except BaseException:  # the process ends: whatever waits for the answer hears of it
            self.replica.failed(query.number, StorageUnavailable(), now=self._clock())
            raise
        else:
            self.replica.answered(query.number, result, now=self._clock())
        finally:
            self.carry_out()

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
        self.replica.wire_state(self._bus.connected, limits_delivered=self._bus.limits_delivered, now=now)
        self.replica.handle_deadline(now=now)
        self.carry_out()

    async def watch_wall_clock(self, every_secs: float = LOOK_SECS) -> None:
        """Until cancelled: streams end with their tokens, also when the wall clock is set."""
        while True:
            self.replica.wall_clock(self._wall(), now=self._clock())
            self.carry_out()
            await anyio.sleep(every_secs)

    # --- getters -------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Some action or ring waits for its turn of the loop."""
        return self._goes_on or self.flusher.busy

    def transports(self) -> list[Transport]:
        """Every stream socket of this replica."""
        return cast("list[Transport]", self.replica.streams.sockets())


PERFORMERS = collect(ReplicaRunner)
"""Which method performs which effect that is not the store's."""

"""Carries out what the core's replica decides: queries, messages to other replicas, flushes, replays and closings.

After each input the replica's actions are taken: the first few at once, more of them for `TURN_SECS` of each turn of the loop, so
that what concerns very many sockets holds nobody up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

import structlog
from anyio.abc import TaskGroup

from openguild_proto.effects.base import Effect, StorageEffect, StorageUnavailable
from openguild_proto.effects.replica import SubscribeChannels, UnsubscribeChannels
from openguild_proto.errors import ErrorCode
from openguild_proto.fanout.hub import SubscriberState
from openguild_proto.http.message import OpenStream
from openguild_proto.limits import FEW_AT_ONCE, TURN_SECS
from openguild_proto.procedures import Procedure
from openguild_proto.records import ControlRecord, ReadState, StoredEvent
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
from openguild_proto.schemas.stream import CONTROL_PROBE
from openguild_runtime.bus.base import REQUEST_ID, Bus
from openguild_runtime.net.flusher import Flusher
from openguild_runtime.net.transport import SEND_BYTES, Transport
from openguild_runtime.observability.metrics import Depths, Metrics
from openguild_runtime.observability.tracing import Tracing
from openguild_runtime.replica.limit_sharing import LimitSharer
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.background import start_contained

AT_A_TIME = 8  # actions between two looks at the clock

log = structlog.get_logger("openguild.replica")


class ReplicaRunner:
    """One per process, on one loop. `clock`: monotonic seconds."""

    def __init__(
        self,
        replica: Replica,
        *,
        storage: Storage,
        bus: Bus,
        metrics: Metrics,
        tasks: TaskGroup,
        clock: Callable[[], float],
        limits: LimitSharer | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.control_probe = CONTROL_PROBE
        self.limits_probe = limits.probe if limits is not None else b""
        self.replica = replica
        self.hub = replica.hub
        self.flusher = Flusher(replica.hub, metrics, clock, self)
        self._storage = storage
        self._bus = bus
        self._tasks = tasks
        self._clock = clock
        self._limits = limits
        self._tracing = tracing
        self._loop = asyncio.get_running_loop()
        self._tickets: dict[int, asyncio.Future[ErrorCode | None]] = {}
        self._pages: dict[Transport, asyncio.Future[None]] = {}  # sockets that wait for a page of the log
        self._timer: asyncio.TimerHandle | None = None
        self._until: float | None = (
            None  # when this turn's time is over; None: no more than a few actions were taken in it
        )
        self._is_carrying_out = False
        self._has_ended = False

    # --- inputs --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Flush rings until cancelled; after that nothing is asked of the store and no timer is set."""
        try:
            await self.flusher.run()
        finally:
            self._has_ended = True
            if self._timer is not None:
                self._timer.cancel()

    async def start(self) -> None:
        """Read where everything stands. Raises StorageUnavailable: try again."""
        await self._run(self.replica.start(), "the start of the replica")

    def follow(self) -> None:
        """From now on the tails are checked."""
        self.replica.follow(now=self._clock())
        self._carry_out()

    def committed(self, event: StoredEvent, request_id: str) -> None:
        """This replica stored an event."""
        if self._tracing is None:
            self.replica.committed(event, request_id, now=self._clock())
            self._carry_out()
            return
        with self._tracing.step("publish"):
            self.replica.committed(event, request_id, now=self._clock())
            self._carry_out()

    def channel_message(self, channel_id: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Another replica stored an event; its request's id finds both logs."""
        log.debug("event from another replica", channel_id=channel_id, request_id=headers.get(REQUEST_ID))
        if self._tracing is None:
            self.replica.heard(channel_id, payload, now=self._clock())
            self._carry_out()
            return
        with self._tracing.heard(headers):
            self.replica.heard(channel_id, payload, now=self._clock())
            self._carry_out()

    def stored(self, record: ControlRecord) -> None:
        """This replica made a change that has a control record."""
        self.replica.stored(record, now=self._clock())
        self._carry_out()

    def control_message(self, payload: bytes) -> None:
        """A control message of another replica."""
        self.replica.heard_control(payload, now=self._clock())
        self._carry_out()

    def announce_read(self, user_id: str, state: ReadState) -> None:
        """A user has read further here."""
        self.replica.read_moved(user_id, state, now=self._clock())
        self._carry_out()

    def limits_message(self, payload: bytes) -> None:
        """What another replica has admitted."""
        if self._limits is not None:
            self._limits.heard(payload)

    def bus_answered(self) -> None:
        """The wire has taken what was published before."""
        if self._limits is not None:
            self._limits.answered()

    def bus_reconnected(self) -> None:
        """The wire was away: whatever it lost is in the log."""
        self.replica.catch_up(now=self._clock())
        self._carry_out()

    def keys_replaced(self, trusts: Callable[[bytes], bool]) -> None:
        """The key ring has changed."""
        self.replica.keys_replaced(trusts, now=self._clock())
        self._carry_out()

    def drain(self, window_secs: float) -> None:
        """Send the streams elsewhere, in waves."""
        self.replica.drain(window_secs, now=self._clock())
        self._carry_out()

    # --- streams -------------------------------------------------------------------------------------

    @property
    def changes(self) -> int:
        """Counts what may have changed a right, for `join`."""
        return self.replica.changes

    async def prepare(self, stream: OpenStream) -> ErrorCode | None:
        """Make this replica hear what the stream needs. Returns why it is refused, None: `join` or `abandon` it."""
        ticket = self.replica.prepare(stream, now=self._clock())
        future = self._tickets[ticket] = self._loop.create_future()
        self._carry_out()
        try:
            refusal: ErrorCode | None = await future
            return refusal
        except BaseException:
            if future.done() and not future.cancelled() and future.result() is None:
                self.abandon(stream)
            else:
                self.replica.cancel(ticket, now=self._clock())
                self._carry_out()
            raise
        finally:
            del self._tickets[ticket]

    def abandon(self, stream: OpenStream) -> None:
        """A prepared stream is not joined."""
        self.replica.abandon(stream, now=self._clock())
        self._carry_out()

    def join(self, transport: Transport, stream: OpenStream, changes: int) -> None:
        """The upgrade was accepted; `changes`: the count when access was checked."""
        transport.streams = self
        self.replica.join(transport, stream, handle=transport.socket.fileno(), changes=changes, now=self._clock())
        self._carry_out()

    def leave(self, transport: Transport) -> None:
        """The socket is going."""
        self.replica.leave(transport, now=self._clock())
        self._carry_out()

    def count_missed(self, transport: Transport) -> None:
        """The socket ends by a deadline."""
        self.replica.streams.count_missed(transport)

    async def feed_parked(self, transport: Transport) -> bool:
        """One step for a socket owned by its pump: a page of the log, or a span of the ring. False: nothing is left."""
        subscriber = transport.subscriber
        if subscriber is None:
            return False
        if subscriber.state is SubscriberState.REPLAYING:
            await self._replay(transport)
            subscriber.parked = True  # live by now, perhaps, and still the pump's
            return True
        if subscriber.state is not SubscriberState.LIVE:
            return False
        span = self.hub.take(subscriber, SEND_BYTES)
        if not span:
            return False
        sent = transport.send(span)
        if sent < 0:
            if not transport.closing:
                await transport.socket.writable()
            return True
        rest = self.hub.sent(subscriber, sent)
        if rest:
            transport.connection.outbox.append(rest)
        return True

    async def _replay(self, transport: Transport) -> None:
        pieces = self.replica.next_pages(transport, now=self._clock())
        if pieces is None:
            read = self._pages[transport] = self._loop.create_future()
            self._carry_out()
            await read
            return
        self._carry_out()
        for last, piece in pieces:
            if transport.subscriber is None or not transport.subscriber.replaying:
                return  # left or closed meanwhile
            transport.connection.outbox.append(piece)
            at_once = transport.push()
            if not self.replica.replayed(transport, last) or not at_once:
                return  # a slow reader holds one piece; when it has taken that, the rest is read again

    # --- what the flusher tells ----------------------------------------------------------------------

    def flush_ended(self) -> None:
        """A round of flushes: the rings may have overrun some readers."""
        self.replica.flushed(now=self._clock())
        self._carry_out()

    def ring_flushed(self, ring: str) -> None:
        """All subscribers that take bytes have what the ring has."""
        if self._tracing is not None:
            self._tracing.flushed(ring)

    # --- actions -------------------------------------------------------------------------------------

    def _carry_out(self) -> None:
        if self._is_carrying_out:  # an action was an input again: it comes to that below
            return
        self._is_carrying_out = True
        try:
            if self._take(FEW_AT_ONCE):
                return
            if self._until is None:
                self._until = self._clock() + TURN_SECS
                self._loop.call_soon(self._next_turn)
            while self._clock() < self._until or self.replica.is_pressed:
                if self._take(AT_A_TIME):
                    return
        finally:
            self._is_carrying_out = False
            self._arm()

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

    def _next_turn(self) -> None:
        self._until = None
        self._carry_out()

    def _do(self, action: AnyAction) -> None:
        match action:
            case Flush(ring=ring, haste=haste):
                self._flush(ring, haste)
            case Publish(channel_id=channel_id, payload=payload, request_id=request_id):
                carrier = self._tracing.carrier() if self._tracing is not None else {}
                self._bus.publish_channel(channel_id, payload, {REQUEST_ID: request_id, **carrier})
            case PublishControl(payload=payload):
                self._bus.publish_control(payload)
            case Query() if self._has_ended:
                self.replica.failed(action.number, StorageUnavailable(), now=self._clock())
            case Query():
                start_contained(self._tasks, self._answer, action)
            case Close(socket=socket, code=code, reason=reason, missed=missed):
                transport = cast("Transport", socket)
                if missed is not None:
                    log.info("stream lagged", missed=missed, **transport.described)
                transport.close(code, reason)
            case Replay(socket=socket):
                read = self._pages.pop(socket, None)
                if read is not None and not read.done():
                    read.set_result(None)
                socket.park()
            case Prepared(ticket=ticket, refusal=refusal):
                future = self._tickets.get(ticket)
                if future is not None and not future.done():
                    future.set_result(refusal)
            case Log(level=level, message=message, fields=fields, failure=failure):
                getattr(log, level.value)(message, **fields, exc_info=failure)

    def _flush(self, ring: str, haste: Haste) -> None:
        if self._tracing is not None and not ring.startswith(USER_RING):
            self._tracing.flush_begins(ring)
        if haste is Haste.SOON:
            self.flusher.mark(ring)
        else:
            self.flusher.hurry(ring, completely=haste is Haste.COMPLETELY)

    async def _answer(self, query: Query) -> None:
        try:
            result = await self._perform(query.effect)
        except Exception as failure:  # the replica knows what it means
            self.replica.failed(query.number, failure, now=self._clock())
        except BaseException:  # the process ends: whatever waits for the answer hears of it
            self.replica.failed(query.number, StorageUnavailable(), now=self._clock())
            self._carry_out()
            raise
        else:
            self.replica.answered(query.number, result, now=self._clock())
        self._carry_out()

    async def _perform(self, effect: Effect[Any]) -> Any:
        match effect:
            case SubscribeChannels(channel_ids=channel_ids):
                for channel_id in channel_ids:
                    await self._bus.subscribe_channel(channel_id)
            case UnsubscribeChannels(channel_ids=channel_ids):
                for channel_id in channel_ids:
                    await self._bus.unsubscribe_channel(channel_id)
            case StorageEffect():
                return await self._storage.perform(effect)
            case _:
                raise TypeError(f"no performer for effect {type(effect).__name__}")
        return None

    async def _run(self, procedure: Procedure[Any], what: str) -> Any:
        """Run a procedure of the replica's to its end. Raises what it raises."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def done(result: Any, error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self.replica.run(procedure, what, done, now=self._clock())
        self._carry_out()
        return await future

    # --- time ----------------------------------------------------------------------------------------

    def _arm(self) -> None:
        deadline = self.replica.next_deadline()
        if deadline is None or self._has_ended:
            return
        when = self._loop.time() + max(0.0, deadline - self._clock())
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._due)

    def _due(self) -> None:
        self._timer = None
        now = self._clock()
        self.replica.wire_state(self._bus.connected, now=now)
        self.replica.handle_deadline(now=now)
        self._carry_out()

    # --- getters -------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Some action or ring waits for its turn of the loop."""
        return self._until is not None or self.flusher.busy

    def depths(self) -> Depths:
        """What is waiting here, for metrics and operators."""
        deep = self.hub.depths()
        channels = [(ring, depth) for ring, depth in deep if not ring.startswith(USER_RING)]
        notifications = next((depth for ring, depth in deep if ring.startswith(USER_RING)), 0)
        return Depths(channels, notifications)

    def transports(self) -> list[Transport]:
        """Every stream socket of this replica."""
        return cast("list[Transport]", self.replica.streams.sockets())

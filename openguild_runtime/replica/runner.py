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

from openguild_proto.errors import ErrorCode
from openguild_proto.http.message import OpenStream
from openguild_proto.limits import FEW_AT_ONCE
from openguild_proto.procedures import Procedure
from openguild_proto.records import ControlRecord, ReadState, StoredEvent
from openguild_proto.replica.notifications import USER_RING
from openguild_proto.replica.replica import Replica
from openguild_proto.schemas.payloads import CONTROL_PROBE
from openguild_runtime.bus.base import REQUEST_ID, Bus
from openguild_runtime.net.flusher import Flusher
from openguild_runtime.net.transport import Transport
from openguild_runtime.observability.metrics import Depths, Metrics
from openguild_runtime.observability.tracing import Tracing
from openguild_runtime.replica.actions import ActionPerformer
from openguild_runtime.replica.limit_sharing import LimitSharer
from openguild_runtime.replica.replays import Replays
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.turns import Turn

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
        self._bus = bus
        self._clock = clock
        self._limits = limits
        self._tracing = tracing
        self._loop = asyncio.get_running_loop()
        self._replays = Replays(replica, clock, self.carry_out)
        self._actions = ActionPerformer(
            replica,
            self._replays,
            self.flusher,
            storage=storage,
            bus=bus,
            tasks=tasks,
            clock=clock,
            carry_out=self.carry_out,
            tracing=tracing,
        )
        self._timer: asyncio.Handle | None = None  # uvloop gives a plain handle where there is nothing to wait for
        self._timer_deadline = 0.0
        self._turn = Turn(clock)
        self._goes_on = False  # in the next turn
        self._is_carrying_out = False

    # --- inputs --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Flush rings until cancelled; after that nothing is asked of the store and no timer is set."""
        try:
            await self.flusher.run()
        finally:
            self._actions.has_ended = True
            if self._timer is not None:
                self._timer.cancel()

    async def start(self) -> None:
        """Read where everything stands. Raises StorageUnavailable: try again."""
        await self._run(self.replica.start(), "the start of the replica")

    def follow(self) -> None:
        """From now on the tails are checked."""
        self.replica.follow(now=self._clock())
        self.carry_out()

    def committed(self, event: StoredEvent, request_id: str) -> None:
        """This replica stored an event."""
        self.replica.committed(event, request_id, now=self._clock())
        self.carry_out()

    def channel_message(self, channel_id: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Another replica stored an event; its request's id finds both logs."""
        log.debug("event from another replica", channel_id=channel_id, request_id=headers.get(REQUEST_ID))
        if self._tracing is None:
            self.replica.heard(channel_id, payload, now=self._clock())
            self.carry_out()
            return
        with self._tracing.continue_trace(headers):
            self.replica.heard(channel_id, payload, now=self._clock())
            self.carry_out()

    def stored(self, record: ControlRecord) -> None:
        """This replica made a change that has a control record."""
        self.replica.stored(record, now=self._clock())
        self.carry_out()

    def control_message(self, payload: bytes) -> None:
        """A control message of another replica."""
        self.replica.heard_control(payload, now=self._clock())
        self.carry_out()

    def announce_read(self, user_id: str, state: ReadState) -> None:
        """A user has read further here."""
        self.replica.read_moved(user_id, state, now=self._clock())
        self.carry_out()

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
        self.carry_out()

    def keys_replaced(self, trusts: Callable[[bytes], bool]) -> None:
        """The key ring has changed."""
        self.replica.keys_replaced(trusts, now=self._clock())
        self.carry_out()

    def drain(self, window_secs: float) -> None:
        """Send the streams elsewhere, in waves."""
        self.replica.drain(window_secs, now=self._clock())
        self.carry_out()

    # --- streams -------------------------------------------------------------------------------------

    @property
    def changes(self) -> int:
        """Counts what may have changed a right, for `join`."""
        return self.replica.changes

    async def prepare(self, stream: OpenStream) -> ErrorCode | None:
        """Make this replica hear what the stream needs. Returns why it is refused, None: `join` or `abandon` it."""
        ticket = self.replica.prepare(stream, now=self._clock())
        future = self._actions.tickets[ticket] = self._loop.create_future()
        self.carry_out()
        try:
            refusal: ErrorCode | None = await asyncio.shield(future)  # else a cancellation hides what comes in its turn
            return refusal
        except BaseException:
            if future.done() and future.result() is None:
                self.abandon(stream)
            else:
                self.replica.cancel(ticket, now=self._clock())
                self.carry_out()
            raise
        finally:
            self._actions.tickets.pop(ticket, None)

    def abandon(self, stream: OpenStream) -> None:
        """A prepared stream is not joined."""
        self.replica.abandon(stream, now=self._clock())
        self.carry_out()

    def join(self, transport: Transport, stream: OpenStream, changes: int) -> None:
        """The upgrade was accepted; `changes`: the count when access was checked."""
        transport.streams = self
        self.replica.join(transport, stream, handle=transport.socket.fileno(), changes=changes, now=self._clock())
        self.carry_out()

    def leave(self, transport: Transport) -> None:
        """The socket is going."""
        self.replica.leave(transport, now=self._clock())
        self.carry_out()

    def count_missed(self, transport: Transport) -> None:
        """The socket ends by a deadline."""
        self.replica.streams.count_missed(transport)

    async def feed_parked(self, transport: Transport) -> bool:
        """One step for a socket owned by its pump. False: nothing is left."""
        return await self._replays.feed(transport)

    # --- what the flusher tells ----------------------------------------------------------------------

    def flush_ended(self) -> None:
        """A round of flushes: the rings may have overrun some readers."""
        self.replica.flushed(now=self._clock())
        self.carry_out()

    def ring_flushed(self, ring: str) -> None:
        """All subscribers that take bytes have what the ring has."""
        if self._tracing is not None:
            self._tracing.flushed(ring)

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

    def _take(self, count: int) -> bool:
        """Carry out up to `count` actions. True: nothing is left."""
        for _ in range(count):
            action = self.replica.next_action()
            if action is None:
                return True
            try:
                self._actions.do(action)
            except Exception:  # contained: the others do not suffer
                log.exception("an action failed", action=type(action).__name__)
        return False

    def _go_on(self) -> None:
        self._goes_on = False
        self.carry_out()

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
        self.carry_out()
        return await future

    # --- time ----------------------------------------------------------------------------------------

    def _arm(self) -> None:
        deadline = self.replica.next_deadline()
        if deadline is None or self._actions.has_ended:
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
        self.replica.wire_state(self._bus.connected, now=now)
        self.replica.handle_deadline(now=now)
        self.carry_out()

    # --- getters -------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Some action or ring waits for its turn of the loop."""
        return self._goes_on or self.flusher.busy

    def depths(self) -> Depths:
        """What is waiting here, for metrics and operators."""
        deep = self.hub.depths()
        channels = [(ring, depth) for ring, depth in deep if not ring.startswith(USER_RING)]
        notifications = next((depth for ring, depth in deep if ring.startswith(USER_RING)), 0)
        return Depths(channels, notifications)

    def transports(self) -> list[Transport]:
        """Every stream socket of this replica."""
        return cast("list[Transport]", self.replica.streams.sockets())

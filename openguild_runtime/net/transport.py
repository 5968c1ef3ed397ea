"""One accepted socket with its I/O-free connection, and the only writer to it.

All bytes are sent by `push` (without waiting) or, if the peer reads too slowly or replays the log, by one temporary `_pump`
task. While that task runs, the subscriber is parked and the fan-out flush skips it, so that two sources never interleave
within a frame (PROTOCOL 8.4.2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import NamedTuple, Protocol, TypeAlias

import anyio
import structlog
from anyio.abc import TaskGroup

from openguild_proto.connection.phases import Wants
from openguild_proto.connection.server import ServerConnection
from openguild_proto.connection.timer_wheel import TICK_SECS, TimerWheel
from openguild_proto.events import Event
from openguild_proto.fanout.hub import Subscriber
from openguild_proto.http.message import OpenStream
from openguild_runtime.net.nonblocking_socket import NonblockingSocket
from openguild_runtime.system.turns import Turn

SEND_BYTES = 65_536

log = structlog.get_logger("openguild.peer")


class FeedResult(Enum):
    """The result of one step of a feeder."""

    MORE = "more"  # bytes were sent or queued, and more may follow
    BLOCKED = "blocked"  # sending would block
    DONE = "done"  # nothing is left, or the stream has ended


class Feeder(Protocol):
    """The source of bytes for the pump of a subscribed socket."""

    def feed(self, transport: Transport) -> FeedResult:
        """Send the next bytes, or put them into the outbox."""


class GatewayDriver(Protocol):
    """The driver of the gateway's protocol on a transport."""

    def next_deadline(self) -> float | None:
        """Return the next deadline in monotonic seconds, or None."""

    def deadline_passed(self) -> None:
        """Handle the deadlines that have passed."""

    @property
    def described(self) -> dict[str, str | None]:
        """The fields of the socket's log records."""

    def write_elsewhere(self) -> None:
        """Hold events back, because another source writes to the socket or it is closing."""


Rest: TypeAlias = Callable[[], Awaitable[None]]
"""A coroutine function that finishes a request."""


class Work(NamedTuple):
    """Work for a connection's task: the rest of a request, then the events that follow."""

    rest: Rest | None
    events: list[Event]
    peer_is_gone: bool = False


class TransportHandler(Protocol):
    """The interface of a transport to its connection server."""

    @property
    def draining(self) -> bool:
        """Whether the server shuts down, so that no stream may begin."""

    def report(self, transport: Transport, event: Event) -> None:
        """Handle an event of an expired deadline."""

    def readable(self, transport: Transport) -> None:
        """Read from the socket, which is readable or has ended."""


class Transport:
    """Does the I/O of one connection. Only the connection server closes the descriptor."""

    __slots__ = (
        "_clock", "_handler", "_idle", "_pumping", "_tasks", "_timers", "_was_blocked", "address", "connection", "feeder",
        "gateway", "socket", "stream", "subscriber", "timer_tick", "work",
    )  # fmt: skip

    def __init__(
        self,
        transport: NonblockingSocket,
        address: str,
        connection: ServerConnection,
        *,
        clock: Callable[[], float],
        timers: TimerWheel[Transport],
        tasks: TaskGroup,
        handler: TransportHandler,
    ) -> None:
        self.socket = transport
        self.address = address
        self.connection = connection
        self.stream: OpenStream | None = None
        self.feeder: Feeder | None = None
        self.gateway: GatewayDriver | None = None
        self.subscriber: Subscriber | None = None
        self.work: asyncio.Future[Work] | None = None  # pending: the connection's task waits; done: it works
        self.timer_tick = -1
        self._clock = clock
        self._timers = timers
        self._tasks = tasks
        self._handler = handler
        self._pumping = False
        self._was_blocked = False  # since the outbox was last empty
        self._idle: anyio.Event | None = None  # set when the pump ends, for `flush`

    @property
    def described(self) -> dict[str, str | None]:
        """The fields of the connection's log records; callbacks run outside of a request's context."""
        stream = self.stream
        if stream is None:
            return {"peer": self.address} if self.gateway is None else {"peer": self.address, **self.gateway.described}
        return {
            "peer": self.address, "request_id": stream.request_id, "user_id": stream.user_id, "channel_id": stream.channel_id,
        }  # fmt: skip

    # --- deadlines ---------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return the earliest deadline of connection and gateway in monotonic seconds, or None."""
        if self.socket.ended:
            return None
        deadline = self.connection.next_deadline()
        if self.gateway is None:
            return deadline
        other = self.gateway.next_deadline()
        return deadline if other is None else other if deadline is None else min(deadline, other)

    def deadline_passed(self) -> None:
        """Handle the deadlines that have passed. Never raises."""
        try:
            for event in self.connection.handle_deadline(self._clock()):
                self._handler.report(self, event)
            if self.gateway is not None:
                self.gateway.deadline_passed()
            self.settle()
        except Exception:  # one connection's failure must not end the others
            log.exception("a deadline failed", **self.described)
            self.abort()

    def expire_at(self, deadline: float, code: int, reason: str) -> None:
        """Close the stream at `deadline` (monotonic seconds), or at once if it has passed."""
        if self.connection.is_open:
            self.connection.expire_at(deadline, code, reason)
            if deadline <= self._clock():
                self.deadline_passed()
            else:
                self._timers.arm(self)

    # --- reading -----------------------------------------------------------------------------------

    def __call__(self) -> None:
        """Have the connection server read. The transport is itself the callback, which saves the memory of a bound method."""
        self._handler.readable(self)

    # --- writing -----------------------------------------------------------------------------------

    @property
    def is_pumping(self) -> bool:
        """Whether the pump owns the write side."""
        return self._pumping

    @property
    def closing(self) -> bool:
        """Whether the socket has ended: nothing is sent or received afterwards."""
        return self.socket.ended

    @property
    def draining(self) -> bool:
        """Whether the server shuts down, so that no stream may begin."""
        return self._handler.draining

    def settle(self) -> None:
        """Send queued bytes, end the connection if it wants that, and arm the timer.

        Must be called after anything that may have queued bytes or changed deadlines.
        """
        connection = self.connection
        if self.subscriber is not None and not connection.is_open:
            self.subscriber.leave()
        if self.gateway is not None and not connection.is_open:
            self.gateway.write_elsewhere()
        wants = connection.wants
        if not self._pumping and wants is not Wants.ABORT and connection.outbox:
            if not self.push():
                self._start_pump()
            wants = connection.wants
        if wants is not Wants.KEEP and (wants is Wants.ABORT or not self._pumping):
            self._end(wants)
        if not self.socket.ended:
            self._timers.arm(self)

    def _end(self, wants: Wants) -> None:
        """Shut down the write side, so that the peer can still read the bytes in flight, or abort."""
        if wants is Wants.SHUT_WRITE:
            self.socket.end_writing()
            self.connection.write_ended(self._clock())
        else:
            self.abort()

    def push(self) -> bool:
        """Send from the outbox until it is empty or sending would block. Returns False if bytes are left."""
        outbox = self.connection.outbox
        while outbox:
            parts = outbox.parts(SEND_BYTES)
            sent = self._taken(self.socket.send(parts[0]) if len(parts) == 1 else self.socket.send_parts(parts))
            if sent < 0:
                return self.socket.ended
            outbox.consume(sent)
        if self._was_blocked:
            self._was_blocked = False
            self.connection.write_idle(self._clock())
        return True

    def send(self, data: bytes | memoryview) -> int:
        """Call send(2) once and return the number of bytes sent, or -1 if it would block or the peer is gone."""
        return self._taken(self.socket.send(data))

    def _taken(self, sent: int | None) -> int:
        if sent is None:
            self.abort()
            return -1
        if not sent:
            self.write_blocked()
            return -1
        if self._was_blocked:
            self.connection.wrote(sent, self._clock())
        return sent

    def write_blocked(self) -> None:
        """Note that sending would block: the write deadline runs from the first time until bytes are sent again."""
        self._was_blocked = True
        if not self.connection.is_write_blocked:
            self.connection.write_blocked(self._clock())
            self._timers.arm(self)

    def park(self) -> None:
        """Start the pump, for a subscriber that the flush cannot serve."""
        if not self._pumping and not self.socket.ended:
            self._start_pump()

    def replay(self) -> None:
        """Send events of the log to the subscriber until sending would block; the pump sends the rest.

        Queued bytes, such as the head of the upgrade's response, are sent together with the first page.
        """
        if self._pumping or self.socket.ended:
            return
        self._own_write_side()
        if not self._pumped(has_pushed=not self._was_blocked):
            self._tasks.start_soon(self._pump)
            return
        self._let_go()
        if not self.socket.ended:
            self.settle()

    def _start_pump(self) -> None:
        self._own_write_side()
        self._tasks.start_soon(self._pump)

    async def _pump(self) -> None:
        """Own the write side until nothing is left to send: the outbox, then replay pages, then the ring."""
        try:
            while not self._pumped():
                await self.socket.writable()
        except Exception:
            self._pump_failed()
        except asyncio.CancelledError:  # no new pump can run, and `flush` would start one again and again
            self.abort()
            raise
        finally:
            self._let_go()
        if not self.socket.ended:
            self.settle()

    def _pumped(self, *, has_pushed: bool = False) -> bool:
        """Send until sending would block (False) or nothing is left (True). Never raises.

        With `has_pushed`, the feeder comes before the outbox.
        """
        try:
            while not self.socket.ended:
                if not has_pushed and not self.push():
                    return False
                has_pushed = False
                if self.connection.is_over or self.feeder is None:
                    break
                fed = self.feeder.feed(self)
                if fed is not FeedResult.MORE:
                    return fed is FeedResult.DONE
        except Exception:
            self._pump_failed()
        return True

    def _pump_failed(self) -> None:
        log.exception("a socket's pump failed", **self.described)
        self.abort()

    def _own_write_side(self) -> None:
        self._pumping = True
        if self.subscriber is not None:
            self.subscriber.parked = True
        if self.gateway is not None:
            self.gateway.write_elsewhere()

    def _let_go(self) -> None:
        self._pumping = False
        if self._idle is not None:
            self._idle.set()
        if self.subscriber is not None and not self.socket.ended:
            self.subscriber.parked = False

    def flushed(self) -> bool:
        """Send without waiting; return True if the outbox is empty or the socket has ended."""
        return self.socket.ended or (not self._pumping and self.push())

    async def flush(self) -> None:
        """Wait until the outbox is empty. In the HTTP phase, the next request is read only then.

        The pump alone waits for the socket: two waiters on one socket are an error.
        """
        while not self.flushed():
            if not self._pumping:
                self._start_pump()
            self._idle = anyio.Event()
            await self._idle.wait()

    # --- closing -----------------------------------------------------------------------------------

    def close(self, code: int, reason: str) -> None:
        """Close in order: a WebSocket with a close frame, an HTTP connection after its last response."""
        if not self.socket.ended:
            self.connection.close(code, reason, self._clock())
            self.settle()

    def abort(self) -> None:
        """Shut down both directions now. Reader and writer wake up, and the connection server cleans up."""
        self.socket.end()
        self._timers.disarm(self)


async def watch_deadlines(timers: TimerWheel[Transport], clock: Callable[[], float]) -> None:
    """Have every transport handle its expired deadlines, until cancelled."""
    turn = Turn(clock)
    while True:
        await anyio.sleep(TICK_SECS)
        await turn.each(timers.due(clock()), Transport.deadline_passed)

"""Drives connections: passes received bytes to the core and its events to the handler, and sends the responses.

A callback of the event loop reads. Requests that the handler can respond to at once need no task. A request that has to
wait is finished by the connection's task, which starts with the first such request and ends when the connection becomes
a WebSocket: a waiting task costs several KiB, and an idle stream needs none.

It holds no rules: the core decides what is read and when a connection ends, the handler how to respond. Exceptions are
caught here, so that none cancels the listener's task group.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import anyio
import structlog
from anyio.abc import TaskGroup

from openguild_proto.connection.phases import Phase
from openguild_proto.connection.server import ServerConnection
from openguild_proto.connection.timer_wheel import TimerWheel
from openguild_proto.events import Event, RequestReceived, WebSocketRequested
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.http.message import Request
from openguild_proto.limits import (
    LONG_BODY_BYTES,
    MAX_UNFINISHED_BODY_BYTES,
    MAX_UNSENT_RESPONSE_BYTES,
    TURN_SECS,
    Limits,
)
from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.admission import Admission, Refused
from openguild_proto.policy.held_bytes import HeldBytes
from openguild_proto.policy.log_throttle import LogThrottle
from openguild_runtime.net.nonblocking_socket import NonblockingSocket
from openguild_runtime.net.request_turns import RequestTurns
from openguild_runtime.net.socket_watch import SocketWatch
from openguild_runtime.net.transport import Rest, Transport, Work
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy

RECEIVE_BYTES = 65_536
STREAM_RECEIVE_BYTES = 2_048  # of messages, between two checks of the clock

log = structlog.get_logger("openguild.http")


class RequestHandler(Protocol):
    """The handler of a connection server's requests."""

    def begin(self, transport: Transport, request: Request) -> Rest | None:
        """Respond to `request`, or accept its upgrade. Nothing else is read from this connection meanwhile.

        Returns None if that is done, else a coroutine function that the connection's task runs.
        """

    def refuse(self, transport: Transport, request: Request) -> None:
        """Respond to `request` that the server is overloaded."""

    def report(self, transport: Transport, event: Event) -> None:
        """Handle an event that is not a request: a message, a violation or an expired deadline."""

    def gone(self, transport: Transport) -> None:
        """Forget a connection that has ended. Its descriptor is closed next, so nothing may write to it afterwards."""


class ConnectionServer:
    """Serves the accepted sockets of one kind of listener: the main one, or that of the metrics."""

    def __init__(
        self,
        handler: RequestHandler,
        *,
        limits: Limits,
        policy: HeaderPolicy,
        metrics: Metrics,
        timers: TimerWheel[Transport],
        watch: SocketWatch,
        tasks: TaskGroup,
        sources: ClocksAndEntropy,
        max_connections: int,
        max_per_address: int,
        max_body_of: Callable[[str, str], int] | None = None,
    ) -> None:
        self.unfinished_bodies: HeldBytes[Transport] = HeldBytes(MAX_UNFINISHED_BODY_BYTES)
        self.unsent_responses: HeldBytes[Transport] = HeldBytes(MAX_UNSENT_RESPONSE_BYTES)
        self.admission: Admission[Transport] = Admission(max_per_address, max_connections)
        self._emptied = anyio.Event()
        self._driving: set[asyncio.Task[None]] = set()  # tasks of connections
        self._turns: RequestTurns[Rest | None] = RequestTurns()
        self._handler = handler
        self._limits = limits
        self._policy = policy
        self._metrics = metrics
        self._timers = timers
        self._watch = watch
        self._tasks = tasks
        self._refusals = LogThrottle()  # of log lines about refused and aborted connections
        self._max_body_of = max_body_of
        self._sources = sources
        self._clock = sources.monotonic

    @property
    def transports(self) -> Mapping[Transport, str]:
        """All connections, oldest first, with their addresses."""
        return self.admission.connections

    @property
    def draining(self) -> bool:
        """Whether new connections and streams are refused because the server shuts down."""
        return self.admission.draining

    # --- connections -------------------------------------------------------------------------------

    def serve(self, sock: socket.socket, address: str) -> None:
        """Serve an accepted socket until it ends. Never raises.

        Its task is not part of the task group: a request ends with its response or at its deadline. `end_all` ends the
        connections, `give_up` cancels their tasks.
        """
        refused = self.admission.check(address, is_trusted=self._policy.is_trusted(address))
        if refused is not None and not (refused is Refused.SERVER_FULL and self.shed()):
            self._refuse(address, refused)
            sock.close()
            return
        transport = self._transport(sock, address)
        self.admission.opened(transport, address)
        self._metrics.connection_opened()
        try:
            transport.socket.call_when_readable(transport)
        except Exception:  # as in `readable`; epoll may be out of memory
            log.exception("connection failed", peer=address)
            self._end(transport)
            return
        self.readable(transport)  # the first request has usually arrived with the connection
        self._timers.arm(transport)

    def _refuse(self, address: str, refused: Refused) -> None:
        self._metrics.rejected("connection_limit")
        reason = refused.value
        if reason is not None and (before := self._refusals.due(reason, self._clock())) is not None:
            count = len(self.transports)
            log.warning(f"connections are refused: {reason}", peer=address, connections=count, since_last=before + 1)

    def _transport(self, sock: socket.socket, address: str) -> Transport:
        connection = ServerConnection(
            now=self._clock(),
            random_bytes=self._sources.random_bytes,
            limits=self._limits,
            policy=self._policy,
            peer_address=address,
            max_body_of=self._max_body_of,
        )
        return Transport(
            NonblockingSocket(sock, self._watch, limit_key(address)),
            address,
            connection,
            clock=self._clock,
            timers=self._timers,
            tasks=self._tasks,
            handler=self,
        )

    def _end(self, transport: Transport) -> None:
        """Close a connection; the handler forgets it before its descriptor can be reused."""
        if not self.admission.closed(transport):
            return
        self.unfinished_bodies.forget(transport)
        self._handler.gone(transport)
        transport.abort()
        transport.socket.close()
        if not self.transports:
            self._emptied.set()
        self._metrics.connection_closed()

    def shed(self) -> bool:
        """Close the oldest connection that waits for its client, to make room. Returns False if none waits."""
        transport = self.admission.to_shed(_waits_for_its_client)
        if transport is None:
            return False
        transport.abort()
        return True

    def end_all(self) -> None:
        """Abort all connections."""
        for transport in list(self.transports):
            transport.abort()

    def give_up(self) -> None:
        """Cancel the tasks of requests that still wait, because the time for the shutdown is over."""
        for task in list(self._driving):
            task.cancel()

    async def wait_empty(self) -> None:
        """Return when no connection is open."""
        while self.transports:
            self._emptied = anyio.Event()
            await self._emptied.wait()

    # --- the tasks of HTTP connections -------------------------------------------------------------

    def _leave_to_task(self, transport: Transport, work: Work) -> None:
        """Pass `work` to the connection's task, and start the task if there is none."""
        waiting, loop = transport.work, asyncio.get_running_loop()
        if waiting is None:
            waiting = transport.work = loop.create_future()
            task = loop.create_task(self._drive(transport))
            self._driving.add(task)
            task.add_done_callback(self._driving.discard)
        waiting.set_result(work)

    async def _drive(self, transport: Transport) -> None:
        became_stream = False
        try:
            became_stream = await self._work(transport)
        except Exception:  # one connection's failure must not end the others
            log.exception("connection failed", **transport.described)
        finally:
            if not became_stream:
                self._end(transport)

    async def _work(self, transport: Transport) -> bool:
        """Run until the connection ends, or return True once it is a WebSocket, which only callbacks drive."""
        connection = transport.connection
        while transport.work is not None:
            rest, events, peer_is_gone = await transport.work
            if rest is not None:
                await rest()
            if not events:
                if not connection.is_websocket and not transport.flushed():
                    await self._flush(transport)
                events = connection.next_events(self._clock())
            await self._take(transport, events)
            if peer_is_gone:
                if not transport.flushed():
                    await self._flush(transport)
                return False
            self._count_body(transport)
            transport.settle()
            if connection.is_websocket:
                self.admission.became_stream(transport)
                transport.work = None
                transport.socket.call_when_readable(transport)
                return True
            transport.work = asyncio.get_running_loop().create_future()
            transport.socket.call_when_readable(transport)
        return False

    async def _take(self, transport: Transport, events: list[Event]) -> None:
        """Handle these events and those that follow. Pipelined requests are queued by address."""
        connection = transport.connection
        while events:
            for event in events:
                if transport.closing:
                    break  # the peer cannot get responses any more
                match event:
                    case RequestReceived(request=request) | WebSocketRequested(request=request):
                        rest = self._enter(transport, request)
                        if rest is not None:
                            await rest()
                        if not connection.is_websocket and not transport.flushed():
                            await self._flush(transport)
                    case _:
                        self._handler.report(transport, event)
            events = connection.next_events(self._clock())

    def _begin(self, transport: Transport, request: Request) -> Rest | None:
        """Have the handler respond; requests with long bodies are queued first."""
        if len(request.body) <= LONG_BODY_BYTES:
            return self._handler.begin(transport, request)
        return self._enter(transport, request)

    def _enter(self, transport: Transport, request: Request) -> Rest | None:
        begin = partial(self._begin_in_turn, transport, request)
        begun = self._turns.enter(request.client_address, len(request.body), begin)
        if begun is not None:
            return partial(_finish_in_turn, begun)
        self._handler.refuse(transport, request)
        return None

    def _begin_in_turn(self, transport: Transport, request: Request) -> Rest | None:
        return None if transport.closing else self._handler.begin(transport, request)

    async def _flush(self, transport: Transport) -> None:
        """Wait until the response is sent. If too many bytes wait on all connections, some are aborted."""
        connection = transport.connection
        slow = self.unsent_responses.hold(transport, connection.client_address, len(connection.outbox))
        self._abort_slow(slow, "slow_reader", "a slow reader was closed: too many bytes wait on all connections")
        try:
            await transport.flush()
        finally:
            self.unsent_responses.forget(transport)

    def _abort_slow(self, transports: list[Transport], reason: str, line: str) -> None:
        for transport in transports:
            if (before := self._refusals.due(reason, self._clock())) is not None:
                log.info(line, **transport.described, since_last=before + 1)
            self._metrics.rejected(reason)
            transport.abort()

    # --- callbacks ---------------------------------------------------------------------------------

    def readable(self, transport: Transport) -> None:
        """Read from a socket that is readable or has ended; called by the transport."""
        work = transport.work
        try:
            if work is not None and work.done():
                transport.socket.read_on(False)  # until the current request is finished
            elif transport.connection.is_websocket:
                self._read_stream(transport)
            elif (left := self._read_requests(transport)) is not None:
                self._leave_to_task(transport, left)
        except Exception as failure:  # one connection's failure must not end the others
            if work is not None and not work.done():
                work.set_exception(failure)
            else:
                log.exception("connection failed", **transport.described)
                self._end(transport)

    def _read_requests(self, transport: Transport) -> Work | None:
        """Read once and respond to a request if that needs no wait; return the work that is left for the task."""
        data = transport.socket.receive(RECEIVE_BYTES)
        if data is None:
            return None
        connection, rest = transport.connection, None
        if not data:
            return Work(None, connection.receive_eof(self._clock()), peer_is_gone=True)
        events = connection.receive_data(data, self._clock())
        self._count_body(transport)
        if events:
            event = events[0]
            if not isinstance(event, RequestReceived | WebSocketRequested) or transport.socket.ended:
                return Work(None, events)
            rest = self._begin(transport, event.request)
            if rest is not None or not transport.flushed():
                return Work(rest, [])
            if connection.phase is Phase.IDLE:  # a short cut: `settle` would only do this
                self._timers.arm(transport)
                return None
            if events := connection.next_events(self._clock()):
                return Work(None, events)
            self._count_body(transport)
        transport.settle()
        return None

    def _count_body(self, transport: Transport) -> None:
        """Count the bytes of an unfinished body. If too many are held in all, the connections of some are aborted."""
        nbytes = transport.connection.unfinished_body_bytes
        if nbytes or self.unfinished_bodies.total_bytes:
            slow = self.unfinished_bodies.hold(transport, transport.connection.client_address, nbytes)
            self._abort_slow(
                slow, "slow_body", "a slow sender was closed: too many bytes of unfinished bodies are held"
            )

    def _read_stream(self, transport: Transport) -> None:
        """Read and handle messages while the socket is read and `TURN_SECS` are not over.

        It reads little at a time, because many small messages take much longer than their bytes suggest.
        """
        connection, sock, now = transport.connection, transport.socket, self._clock()
        until = now + TURN_SECS
        while (data := sock.receive(STREAM_RECEIVE_BYTES)) is not None:
            events = connection.receive_data(data, now) if data else connection.receive_eof(now)
            while events:
                for event in events:
                    self._handler.report(transport, event)
                events = connection.next_events(now)
            if not data:
                transport.push()
                self._end(transport)
                return
            if len(data) < STREAM_RECEIVE_BYTES or not sock.is_read or (now := self._clock()) >= until:
                break
        transport.settle()

    def report(self, transport: Transport, event: Event) -> None:
        """Handle an event of an expired deadline; called by the transport."""
        self._count_body(transport)
        self._handler.report(transport, event)


async def _finish_in_turn(begun: asyncio.Future[Rest | None]) -> None:
    rest = await begun
    if rest is not None:
        await rest()


def _waits_for_its_client(transport: Transport) -> bool:
    return not transport.connection.awaits_response and not transport.closing

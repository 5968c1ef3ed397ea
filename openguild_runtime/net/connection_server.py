"""The one loop that drives a connection: bytes in, events out, answers by the handler, bytes to send.

While a connection speaks HTTP a task drives it. A WebSocket gets its bytes from a callback of the loop instead: the
task ends with the upgrade, because a waiting task costs several KiB and an idle stream needs none.

It holds no rule: the core decides what is read and when a connection ends, the handler what is answered. A failure that
escapes is contained here, so that it never cancels the listener's task group.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from itertools import islice
from typing import Protocol

import anyio
import structlog
from anyio.abc import TaskGroup

from openguild_proto.connection.server import ServerConnection
from openguild_proto.events import Event, RequestReceived, WebSocketRequested
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.http.message import Request
from openguild_proto.limits import MAX_WAITING_ANSWER_BYTES, Limits
from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.connections import Quota
from openguild_proto.policy.standing import LogThrottle
from openguild_proto.policy.waiting import WaitingAnswers
from openguild_runtime.net.nonblocking_socket import NonblockingSocket
from openguild_runtime.net.timers import TimerWheel
from openguild_runtime.net.transport import Transport
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.system.sources import Sources

RECEIVE_BYTES = 65_536
SHED_LOOKS = 256  # connections looked at for one that can make room

log = structlog.get_logger("openguild.http")


class RequestHandler(Protocol):
    """What answers the requests of a connection server."""

    async def answer(self, transport: Transport, request: Request) -> None:
        """Respond to `request`, or accept the upgrade it asks for; nothing else of this connection is read meanwhile."""

    def report(self, transport: Transport, event: Event) -> None:
        """The core has decided something by itself, or a message has come."""

    def gone(self, transport: Transport) -> None:
        """The connection has ended, and its descriptor is about to be closed: nothing may write to it from here on."""


class ConnectionServer:
    """Serves accepted sockets; one per process and kind of request, shared by all connections."""

    def __init__(
        self,
        handler: RequestHandler,
        *,
        limits: Limits,
        policy: HeaderPolicy,
        metrics: Metrics,
        timers: TimerWheel,
        tasks: TaskGroup,
        sources: Sources,
        max_connections: int,
        max_per_address: int,
        max_body_of: Callable[[str, str], int] | None = None,
    ) -> None:
        self.draining = False
        self.max_connections = max_connections
        self.waiting: WaitingAnswers[Transport] = WaitingAnswers(MAX_WAITING_ANSWER_BYTES)
        self.transports: dict[Transport, None] = {}  # in the order of their coming
        self._http: dict[Transport, None] = {}  # those of them that are no streams yet
        self._emptied = anyio.Event()
        self._scopes: set[anyio.CancelScope] = set()  # of the tasks that drive connections
        self._handler = handler
        self._limits = limits
        self._policy = policy
        self._metrics = metrics
        self._timers = timers
        self._tasks = tasks
        self._places = Quota(max_per_address)
        self._refusals = LogThrottle()  # lines of the log about them
        self._max_body_of = max_body_of
        self._sources = sources
        self._clock = sources.monotonic

    # --- coming and going --------------------------------------------------------------------------

    async def serve(self, sock: socket.socket, address: str) -> None:
        """Drive one socket to its end; never raises.

        It is not cancelled either: a request ends by its answer or at its deadline. `end_all` ends connections, `give_up`
        waits for no request.
        """
        full = self._full(address)
        if full is not None:
            self._metrics.rejected("connection_limit")
            if full and (before := self._refusals.due(full, self._clock())) is not None:
                log.warning(
                    f"connections are refused: {full}",
                    peer=address,
                    connections=len(self.transports),
                    since_last=before + 1,
                )
            sock.close()
            return
        with anyio.CancelScope(shield=True) as scope:
            self._scopes.add(scope)
            try:
                await self._serve(sock, address)
            finally:
                self._scopes.discard(scope)

    def _full(self, address: str) -> str | None:
        """Why there is no room for one more; "": the server ends. A trusted proxy brings the connections of many clients."""
        if self.draining:
            return ""
        if not (self._places.has_room(limit_key(address)) or self._policy.is_trusted(address)):
            return "an address holds all that one may have (websocket.max_connections_per_address)"
        if len(self.transports) < self.max_connections or self.shed():
            return None
        return "the server has as many as it may (websocket.max_connections, the limit of open files)"

    async def _serve(self, sock: socket.socket, address: str) -> None:
        connection = ServerConnection(
            now=self._clock(),
            random_bytes=self._sources.random_bytes,
            limits=self._limits,
            policy=self._policy,
            peer_address=address,
            max_body_of=self._max_body_of,
        )
        transport = Transport(
            NonblockingSocket(sock),
            address,
            connection,
            clock=self._clock,
            timers=self._timers,
            tasks=self._tasks,
            handler=self,
        )
        self.transports[transport] = self._http[transport] = None
        self._places.take(limit_key(address))
        self._metrics.connection_opened()
        became_stream = False
        try:
            became_stream = await self._drive(transport)
        except Exception:  # contained: one connection's failure must not end the listener's task group
            log.exception("connection failed", peer=address)
        finally:
            if not became_stream:
                self._end(transport)

    def _end(self, transport: Transport) -> None:
        """The handler lets go of the socket before its descriptor is closed, so that nothing writes to a reused one."""
        if transport not in self.transports:
            return
        del self.transports[transport]
        self._http.pop(transport, None)
        self._places.give_back(limit_key(transport.address))
        self._handler.gone(transport)
        transport.abort()
        transport.socket.close()
        if not self.transports:
            self._emptied.set()
        self._metrics.connection_closed()

    def shed(self) -> bool:
        """There is no room: the oldest connection that waits for its client makes some. False: none was found."""
        for transport in islice(self._http, SHED_LOOKS):
            if not transport.connection.is_answering and not transport.closing:
                transport.abort()
                return True
        return False

    def end_all(self) -> None:
        """Whatever is still open ends now."""
        for transport in list(self.transports):
            transport.abort()

    def give_up(self) -> None:
        """Whatever a request still waits for is left: the process ends, and its time is over."""
        for scope in list(self._scopes):
            scope.cancel()

    async def wait_empty(self) -> None:
        """Return when no connection is open."""
        while self.transports:
            self._emptied = anyio.Event()
            await self._emptied.wait()

    # --- HTTP: driven by a task --------------------------------------------------------------------

    async def _drive(self, transport: Transport) -> bool:
        """Until the connection ends, or until the loop drives it: True then."""
        connection = transport.connection
        transport.settle()
        while data := await transport.socket.receive_some(RECEIVE_BYTES):
            await self._take(transport, connection.receive_data(data, self._clock()))
            transport.settle()
            if connection.is_websocket:
                del self._http[transport]
                transport.socket.call_when_readable(transport)
                return True
        await self._take(transport, connection.receive_eof(self._clock()))
        if not transport.flushed():
            await self._flush(transport)
        return False

    async def _take(self, transport: Transport, events: list[Event]) -> None:
        """Have these events answered, and those behind them."""
        connection = transport.connection
        while events:
            for event in events:
                if transport.closing:
                    break  # nobody waits for the answer to what was pipelined
                match event:
                    case RequestReceived(request=request) | WebSocketRequested(request=request):
                        await self._handler.answer(transport, request)
                        if not connection.is_websocket and not transport.flushed():
                            await self._flush(transport)
                    case _:
                        self._handler.report(transport, event)
            events = connection.next_events(self._clock())
            if events:
                await asyncio.sleep(0)  # everybody else has a turn before what was pipelined

    async def _flush(self, transport: Transport) -> None:
        """Wait until the answer has left; the one that waits longest is given up where too much waits in all."""
        for slow in self.waiting.begin(transport, len(transport.connection.outbox)):
            log.info("a reader was too slow while many were", **slow.described)
            self._metrics.rejected("slow_reader")
            slow.abort()
        try:
            await transport.flush()
        finally:
            self.waiting.end(transport)

    # --- WebSocket: driven by callbacks ------------------------------------------------------------

    def readable(self, transport: Transport) -> None:
        """Called by the transport of a stream."""
        try:
            data = transport.socket.receive(RECEIVE_BYTES)
            if data is None:
                return
            connection, now = transport.connection, self._clock()
            events = connection.receive_data(data, now) if data else connection.receive_eof(now)
            while events:
                for event in events:
                    self._handler.report(transport, event)
                events = connection.next_events(now)
            if data:
                transport.settle()
            else:
                transport.push()
                self._end(transport)
        except Exception:  # contained: one connection's failure must not end the others
            log.exception("connection failed", peer=transport.address)
            self._end(transport)

    def report(self, transport: Transport, event: Event) -> None:
        """Called by a transport at a deadline."""
        self._handler.report(transport, event)

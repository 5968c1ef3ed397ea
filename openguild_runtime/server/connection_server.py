"""The one loop that drives a connection: bytes in, events out, operations performed, bytes to send.

While a connection speaks HTTP a task drives it. A WebSocket gets its bytes from a callback of the loop instead: the
task ends with the upgrade, because a waiting task costs several KiB and an idle stream needs none.

It holds no rule: what to answer is the core's decision. A failure that escapes is contained here, so that it never
cancels the listener's task group, and the client gets a typed 500 where an answer is still possible.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice

import anyio
import structlog
from anyio.abc import TaskGroup

from openguild_proto.connection.server import ServerConnection
from openguild_proto.effects import Operation
from openguild_proto.errors import ErrorCode
from openguild_proto.events import DeadlineExpired, Event, PeerViolated, RequestReceived, WebSocketRequested
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.http.message import OpenStream, Request, Response
from openguild_proto.http.refusal import error_response
from openguild_proto.limits import MAX_WAITING_ANSWER_BYTES, Limits
from openguild_proto.operations.context import Context, Service
from openguild_proto.operations.routes import max_body_bytes
from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.connections import Quota
from openguild_proto.policy.standing import LogThrottle
from openguild_proto.policy.waiting import WaitingAnswers
from openguild_runtime.effects.performer import Performer
from openguild_runtime.net.nonblocking_socket import NonblockingSocket
from openguild_runtime.net.timers import TimerWheel
from openguild_runtime.net.transport import Transport
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.observability.tracing import Tracing
from openguild_runtime.replica.expiry import expire_with_token
from openguild_runtime.replica.runner import ReplicaRunner
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy

RECEIVE_BYTES = 65_536
SHED_LOOKS = 256  # connections looked at for one that can make room

Dispatch = Callable[[Context, Request], Operation[Response | OpenStream]]

log = structlog.get_logger("openguild.http")


class ConnectionServer:
    """Serves accepted sockets; one per process, shared by all connections."""

    def __init__(
        self,
        *,
        service: Service,
        limits: Limits,
        policy: HeaderPolicy,
        performer: Performer,
        streams: ReplicaRunner,
        metrics: Metrics,
        timers: TimerWheel,
        tasks: TaskGroup,
        max_connections: int,
        max_per_address: int,
        dispatch: Dispatch,
        tracing: Tracing | None = None,
        sources: ClocksAndEntropy,
    ) -> None:
        self.service = service
        self.draining = False
        self.waiting: WaitingAnswers[Transport] = WaitingAnswers(MAX_WAITING_ANSWER_BYTES)
        self.transports: dict[Transport, None] = {}  # in the order of their coming
        self._http: dict[Transport, None] = {}  # those of them that are no streams yet
        self._emptied = anyio.Event()
        self._scopes: set[anyio.CancelScope] = set()  # of the tasks that drive connections
        self._limits = limits
        self._policy = policy
        self._performer = performer
        self._tracing = tracing
        self._streams = streams
        self._metrics = metrics
        self._timers = timers
        self._tasks = tasks
        self.max_connections = max_connections
        self._places = Quota(max_per_address)
        self._refusals = LogThrottle()  # lines of the log about them
        self._dispatch = dispatch
        self._sources = sources
        self._clock = sources.monotonic

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
            max_body_of=max_body_bytes,
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
        """The socket leaves its ring, then its descriptor is closed; in this order, so that nothing writes to a reused one."""
        if transport not in self.transports:
            return
        del self.transports[transport]
        self._http.pop(transport, None)
        self._places.give_back(limit_key(transport.address))
        self._release_stream(transport)
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

    async def _drive(self, transport: Transport) -> bool:
        """Until the connection ends, or until the loop drives it: True then."""
        connection = transport.connection
        transport.settle()
        while data := await transport.socket.receive_some(RECEIVE_BYTES):
            for number, event in enumerate(connection.receive_data(data, self._clock())):
                if number:  # pipelined: everybody else has a turn before it
                    await asyncio.sleep(0)
                await self._handle(transport, event)
            transport.settle()
            if connection.is_websocket:
                del self._http[transport]
                transport.socket.call_when_readable(transport)
                return True
        for event in connection.receive_eof(self._clock()):
            await self._handle(transport, event)
        await self._flush(transport)
        return False

    async def _flush(self, transport: Transport) -> None:
        """Wait until the answer has left; the one that waits longest is given up where too much waits in all."""
        if transport.flushed():
            return
        for slow in self.waiting.begin(transport, len(transport.connection.outbox)):
            log.info("a reader was too slow while many were", **slow.described)
            self._metrics.rejected("slow_reader")
            slow.abort()
        try:
            await transport.flush()
        finally:
            self.waiting.end(transport)

    # --- streams: driven by callbacks ----------------------------------------------------------------

    def readable(self, transport: Transport) -> None:
        """Called by a stream's peer."""
        try:
            data = transport.socket.receive(RECEIVE_BYTES)
            if data is None:
                return
            connection = transport.connection
            if data:
                for event in connection.receive_data(data, self._clock()):
                    self.report(transport, event)
                transport.settle()
            else:
                for event in connection.receive_eof(self._clock()):
                    self.report(transport, event)
                transport.push()
                self._end(transport)
        except Exception:  # contained: one connection's failure must not end the others
            log.exception("connection failed", peer=transport.address)
            self._end(transport)

    # --- requests ----------------------------------------------------------------------------------

    async def _handle(self, transport: Transport, event: Event) -> None:
        if transport.closing:
            return  # nobody waits for the answer to what was pipelined
        match event:
            case RequestReceived(request=request) | WebSocketRequested(request=request):
                await self._answer(transport, request)
                if not transport.connection.is_websocket:
                    await self._flush(transport)
            case _:
                self.report(transport, event)

    def report(self, transport: Transport, event: Event) -> None:
        """Count and log what the core has decided by itself; client messages are ignored (PROTOCOL 8.7.1)."""
        reason: str | None = None
        status: int | None = None
        match event:
            case PeerViolated(rule=rule, status_hint=status, reason=reason):
                log.info("peer broke a rule", rule=rule, **transport.described)
            case DeadlineExpired(name=name, status_hint=status, reason=reason):
                log.info("deadline passed", deadline=name, **transport.described)
                self._streams.count_missed(transport)
        if reason is not None:
            self._metrics.rejected(reason)
        if status is not None:
            self._metrics.http_request("unmatched", status, 0.0)

    async def _answer(self, transport: Transport, request: Request) -> None:
        started, changes = self._clock(), self._streams.changes
        deadline = anyio.current_time() + self._limits.request_timeout_secs
        refused: dict[str, str] = {}
        structlog.contextvars.bind_contextvars(request_id=request.request_id)
        try:
            result = await self._traced(request, deadline)
            if isinstance(result, OpenStream):
                result = await self._open_stream(transport, request, result, changes, deadline)
            if isinstance(result, Response):
                transport.connection.respond(result, self._clock())
                status, route = result.status, result.route
                if result.rejection is not None:
                    self._metrics.rejected(result.rejection)
                    refused["rejection"] = result.rejection
            else:
                status, route = 101, result.route
            elapsed = self._clock() - started
            if request.method != "OPTIONS":  # a browser's preflight is no request of a client (PROTOCOL 11.2.3)
                self._metrics.http_request(route, status, elapsed)
            log.info(
                "request completed",
                method=request.shown_method,
                route=route,
                status=status,
                latency_ms=round(elapsed * 1000, 2),
                client=request.client_address,
                **refused,
            )
        finally:
            if not transport.connection.is_websocket:  # a stream's records carry the id of its upgrade
                structlog.contextvars.unbind_contextvars("request_id")

    async def _traced(self, request: Request, deadline: float) -> Response | OpenStream:
        """`_perform` within a span, where there is tracing."""
        if self._tracing is None:
            return await self._perform(request, deadline)
        with self._tracing.request(request) as span:
            result = await self._perform(request, deadline)
            route = result.route or "unmatched"
            span.update_name(f"{request.shown_method} {route}")
            span.set_attribute("http.route", route)
            span.set_attribute("http.response.status_code", result.status if isinstance(result, Response) else 101)
        return result

    async def _perform(self, request: Request, deadline: float) -> Response | OpenStream:
        context = Context(
            now=self._clock(),
            wall_ms=int(self._sources.wall() * 1000),
            entropy=self._sources.random_bytes,
            service=self.service,
        )
        try:
            return await self._performer.run(self._dispatch(context, request), request.request_id, deadline)
        except Exception:  # a defect of ours: logged with its traceback, answered with a typed 500
            log.exception("operation failed", method=request.shown_method)
            return error_response(ErrorCode.SERVER_ERROR, request.request_id)

    # --- streams -----------------------------------------------------------------------------------

    async def _open_stream(
        self, transport: Transport, request: Request, stream: OpenStream, changes: int, deadline: float
    ) -> OpenStream | Response:
        """Accept the upgrade and join the stream, or answer why not; the reserved place is given back then."""
        refusal: ErrorCode | None = ErrorCode.DATABASE_UNAVAILABLE  # what it is when the deadline passes
        with ExitStack() as undo:
            undo.callback(self._give_back, stream)
            with anyio.CancelScope(deadline=deadline):
                refusal = await self._streams.prepare(stream)
                if refusal is None:
                    undo.callback(self._streams.abandon, stream)
            if self.draining:  # looked at after the wait: from then on the drain closes every stream there is
                refusal = ErrorCode.DRAINING
            if refusal is not None:
                return error_response(refusal, request.request_id, route=stream.route)
            transport.connection.accept(self._clock(), subprotocol=stream.subprotocol, headers=stream.headers)
            undo.pop_all()  # from here on the peer has the stream, and gives it back when it ends
        expire_with_token(transport, stream, self._sources)
        self._streams.join(transport, stream, changes)
        self._metrics.socket_opened()
        return stream

    def _release_stream(self, transport: Transport) -> None:
        stream = transport.stream
        if stream is not None:
            self._streams.leave(transport)
            self._give_back(stream)
            self._metrics.socket_closed()
            log.debug("stream ended", channel_id=stream.channel_id, user_id=stream.user_id)

    def _give_back(self, stream: OpenStream) -> None:
        self.service.sockets.release(stream.user_id, stream.address)

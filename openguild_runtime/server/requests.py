"""Responds to requests: an operation performed, traced, counted and logged; a stream opened, and ended when its socket is gone.

It holds no rule: how to respond is the core's decision. A failure of an operation gives a typed 500.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import anyio
import structlog

from openguild_proto.effects import Operation
from openguild_proto.errors import ErrorCode
from openguild_proto.events import DeadlineExpired, Event, PeerViolated
from openguild_proto.http.message import OpenStream, Request, Response
from openguild_proto.http.refusal import error_response
from openguild_proto.operations.context import Context, Service
from openguild_runtime.effects.performer import Performer
from openguild_runtime.net.transport import Transport
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.observability.tracing import Tracing
from openguild_runtime.replica.runner import ReplicaRunner
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy

Dispatch = Callable[[Context, Request], Operation[Response | OpenStream]]

log = structlog.get_logger("openguild.http")


class Requests:
    """The `RequestHandler` of a replica. `timeout_secs`: from a request's last byte to its response."""

    def __init__(
        self,
        *,
        service: Service,
        performer: Performer,
        streams: ReplicaRunner,
        metrics: Metrics,
        dispatch: Dispatch,
        sources: ClocksAndEntropy,
        timeout_secs: float,
        tracing: Tracing | None = None,
    ) -> None:
        self._service = service
        self._performer = performer
        self._streams = streams
        self._metrics = metrics
        self._dispatch = dispatch
        self._sources = sources
        self._clock = sources.monotonic
        self._timeout_secs = timeout_secs
        self._tracing = tracing

    def report(self, transport: Transport, event: Event) -> None:
        """Count and log what the core has decided by itself; client messages are ignored (PROTOCOL 8.7.1)."""
        reason: str | None = None
        status: int | None = None
        match event:
            case PeerViolated(rule=rule, status_hint=status, reason=reason):
                log.info("peer broke a rule", rule=rule, **transport.described)
            case DeadlineExpired(name=name, status_hint=status, reason=reason):
                log.info("deadline passed", deadline=name, **transport.described)
                self._streams.replica.streams.count_missed(transport)
        if reason is not None:
            self._metrics.rejected(reason)
        if status is not None:
            self._metrics.http_request("unmatched", status, 0.0)

    async def respond(self, transport: Transport, request: Request) -> None:
        """Perform the request's operation, and respond or open the stream."""
        started, changes = self._clock(), self._streams.replica.changes
        deadline = anyio.current_time() + self._timeout_secs
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
            service=self._service,
        )
        try:
            return await self._performer.run(self._dispatch(context, request), request.request_id, deadline)
        except Exception:  # a defect of ours: logged with its traceback; the client gets a typed 500
            log.exception("operation failed", method=request.shown_method)
            return error_response(ErrorCode.SERVER_ERROR, request.request_id)

    # --- streams -----------------------------------------------------------------------------------

    async def _open_stream(
        self, transport: Transport, request: Request, stream: OpenStream, changes: int, deadline: float
    ) -> OpenStream | Response:
        """Accept the upgrade and join the stream, or respond why not; the reserved place is given back then."""
        refusal: ErrorCode | None = ErrorCode.DATABASE_UNAVAILABLE  # what it is when the deadline passes
        with ExitStack() as undo:
            undo.callback(self._give_back, stream)
            with anyio.CancelScope(deadline=deadline):
                refusal = await self._streams.prepare(stream)
                if refusal is None:
                    undo.callback(self._streams.abandon, stream)
            if transport.draining:  # looked at after the wait: from then on the drain closes every stream there is
                refusal = ErrorCode.DRAINING
            if refusal is not None:
                return error_response(refusal, request.request_id, route=stream.route)
            transport.connection.accept(self._clock(), subprotocol=stream.subprotocol, headers=stream.headers)
            undo.pop_all()  # from here on the peer has the stream, and gives it back when it ends
        self._streams.join(transport, stream, changes)
        self._metrics.socket_opened()
        return stream

    def gone(self, transport: Transport) -> None:
        """Take a stream's socket out of its ring, and give its place back."""
        stream = transport.stream
        if stream is not None:
            self._streams.leave(transport)
            self._give_back(stream)
            self._metrics.socket_closed()
            log.debug("stream ended", channel_id=stream.channel_id, user_id=stream.user_id)

    def _give_back(self, stream: OpenStream) -> None:
        self._service.sockets.release(stream.user_id, stream.address)

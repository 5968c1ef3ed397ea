"""Responds to requests with the response of an operation, a stream or a gateway socket.

It holds no rules: the core decides how to respond.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from functools import partial

import structlog

from openguild_proto.diagnosis.requests import FinishedRequest
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.events import BytesReceived, DeadlineExpired, Event, PeerViolated, TextReceived
from openguild_proto.gateway.connection import CONNECTION_CODES
from openguild_proto.http.message import OpenGateway, OpenStream, Request, Response
from openguild_proto.http.refusal import error_response, refusal_response
from openguild_proto.limits import OVERLOADED_RETRY_SECS
from openguild_runtime.gateway.sessions import GatewaySessions
from openguild_runtime.net.transport import Rest, Transport
from openguild_runtime.observability.log_context import request_id as current_request_id
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.replica.runner import ReplicaRunner
from openguild_runtime.server.request_runner import Begun, RequestRunner

log = structlog.get_logger("openguild.http")


class Requests:
    """The `RequestHandler` of a replica."""

    def __init__(
        self, runner: RequestRunner, replica: ReplicaRunner, gateway: GatewaySessions, metrics: Metrics
    ) -> None:
        self._runner = runner
        self._replica = replica.replica
        self._streams = replica.streams
        self._gateway = gateway
        self._metrics = metrics

    def report(self, transport: Transport, event: Event) -> None:
        """Pass messages to the gateway session, and count and log violations and expired deadlines.

        Messages on a stream are ignored (PROTOCOL 8.7.1).
        """
        reason: str | None = None
        status: int | None = None
        match event:
            case TextReceived() | BytesReceived():
                self._gateway.received(transport, event)
            case PeerViolated(rule=rule, status_hint=status, reason=reason):
                log.info("protocol violation by a peer", rule=rule, **_described(transport, event))
                self._remember(transport, event, rule)
            case DeadlineExpired(name=name, status_hint=status, reason=reason):
                log.info("deadline passed", deadline=name, **_described(transport, event))
                self._remember(transport, event, f"deadline passed: {name}")
                self._replica.streams.count_missed(transport, reason)
                self._gateway.timed_out(transport, reason)
        if reason is not None:
            self._metrics.rejected(reason)
        if status is not None:
            self._metrics.http_request("unmatched", status, 0.0)

    def _remember(self, transport: Transport, event: PeerViolated | DeadlineExpired, detail: str) -> None:
        if event.request_id:
            self._runner.history.add(
                FinishedRequest(
                    ended_at=self._runner.wall(),
                    request_id=event.request_id,
                    method="",
                    route="unmatched",
                    status=event.status_hint or 0,
                    secs=0.0,
                    client=transport.address,
                    reason=event.reason,
                    detail=detail,
                )
            )

    def begin(self, transport: Transport, request: Request) -> Rest | None:
        """Respond at once if the operation has no effects; otherwise return the coroutine function that performs it."""
        # a copy, so that the request's ID does not stay in the reader's context
        return copy_context().run(self._begin, transport, request)

    def _begin(self, transport: Transport, request: Request) -> Rest | None:
        runner, connection = self._runner, transport.connection
        started, changes = runner.clock(), self._replica.changes
        current_request_id.set(request.request_id)
        begun = runner.begin(request)
        if not isinstance(begun, Response):
            return partial(self._finish, transport, request, begun, started, changes)
        connection.respond(begun, runner.clock())
        runner.completed(request, begun, started)
        return None

    def refuse(self, transport: Transport, request: Request) -> None:
        """Respond 503 `overloaded`, without looking at the request, because too many requests wait already."""
        started = self._runner.clock()
        refusal = Refusal(ErrorCode.OVERLOADED, wait_secs=OVERLOADED_RETRY_SECS)
        response = refusal_response(refusal, request.request_id)
        transport.connection.respond(response, started)
        self._runner.completed(request, response, started)

    async def _finish(self, transport: Transport, request: Request, begun: Begun, started: float, changes: int) -> None:
        """Perform the rest of an operation, and respond or open the stream."""
        runner = self._runner
        deadline = asyncio.get_running_loop().time() + runner.timeout_secs
        current_request_id.set(request.request_id)
        try:
            result = await runner.finish(request, begun, deadline)
            if isinstance(result, OpenStream):
                result = await self._open_stream(transport, request, result, changes, deadline)
            elif isinstance(result, OpenGateway):
                result = self._open_gateway(transport, request, result)
            if isinstance(result, Response):
                transport.connection.respond(result, runner.clock())
            runner.completed(request, result, started)
        finally:
            if not transport.connection.is_websocket:  # the task of a stream goes on, and `described` has its ID
                current_request_id.set(None)

    # --- streams -----------------------------------------------------------------------------------

    async def _open_stream(
        self, transport: Transport, request: Request, stream: OpenStream, changes: int, deadline: float
    ) -> OpenStream | Response:
        """Accept the upgrade and join the stream, or return the error response and release the reserved place."""
        is_prepared = is_accepted = False
        try:
            refusal = await self._streams.prepare(stream, deadline)
            is_prepared = refusal is None
            if transport.draining:  # checked after the wait: the drain closes the streams that are open by then
                refusal = ErrorCode.DRAINING
            if refusal is not None:
                return error_response(refusal, request.request_id, route=stream.route)
            transport.connection.accept(self._runner.clock(), subprotocol=stream.subprotocol, headers=stream.headers)
            transport.socket.turns_of = stream.address
            is_accepted = True  # from here on, `gone` releases the place
        finally:
            if is_prepared and not is_accepted:
                self._streams.abandon(stream)
            if not is_accepted:
                self._give_back(stream)
        self._streams.join(transport, stream.accepted(), changes)
        self._metrics.socket_opened()
        return stream

    def _open_gateway(self, transport: Transport, request: Request, opened: OpenGateway) -> OpenGateway | Response:
        """Accept the upgrade. The session checks the token and reports errors over the socket."""
        if transport.draining:
            self._runner.service.sockets.release(None, opened.address)
            return error_response(ErrorCode.DRAINING, request.request_id, route=opened.route)
        transport.connection.accept(
            self._runner.clock(),
            subprotocol=opened.subprotocol,
            headers=opened.headers,
            codes=CONNECTION_CODES,
            limits=self._gateway.connection_limits,
        )
        transport.socket.turns_of = opened.address
        self._gateway.open(transport, opened, request.client_address)
        self._metrics.socket_opened()
        return opened

    def gone(self, transport: Transport) -> None:
        """Remove a closed socket from its stream or gateway session, and release its place."""
        stream = transport.stream
        if stream is not None:
            self._streams.leave(transport)
            self._give_back(stream)
            self._metrics.socket_closed()
            log.debug(
                "stream ended", request_id=stream.request_id, channel_id=stream.channel_id, user_id=stream.user_id
            )
        elif self._gateway.left(transport):
            self._metrics.socket_closed()

    def _give_back(self, stream: OpenStream) -> None:
        self._runner.service.sockets.release(stream.user_id, stream.address)


def _described(transport: Transport, event: PeerViolated | DeadlineExpired) -> dict[str, str | None]:
    return transport.described | ({"request_id": event.request_id} if event.request_id else {})

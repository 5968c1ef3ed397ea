"""Runs the operation of a request, over HTTP or a gateway socket, with tracing, metrics and an access log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import structlog

from openguild_proto.diagnosis.heavy_hitters import HeavyHitters
from openguild_proto.diagnosis.requests import FinishedRequest, RequestHistory
from openguild_proto.effects import Effect, Operation
from openguild_proto.errors import ErrorCode
from openguild_proto.http.message import OpenGateway, OpenStream, Request, Response
from openguild_proto.http.refusal import error_response
from openguild_proto.operations.context import Context, Service
from openguild_runtime.effects.performer import Performer
from openguild_runtime.observability.logs import ACCESS_TARGET, log_access
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.observability.tracing import Tracing
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy

T = TypeVar("T")

Result: TypeAlias = Response | OpenStream | OpenGateway
Begun: TypeAlias = tuple[Operation[Result] | OpenStream | OpenGateway, Effect[Any] | None]
"""An operation and its first effect. The effect is None for an operation that has not begun, and for an opened stream."""
Dispatch = Callable[[Context, Request], Operation[Result]]

log = structlog.get_logger(ACCESS_TARGET)


class RequestRunner:
    """Runs requests through `dispatch` and the performer.

    `timeout_secs` is the time from the last byte of a request to its response. `contacted(server)` is called for each
    request that another server has validly signed.
    """

    def __init__(
        self,
        *,
        service: Service,
        performer: Performer,
        metrics: Metrics,
        dispatch: Dispatch,
        sources: ClocksAndEntropy,
        timeout_secs: float,
        history: RequestHistory,
        busy_users: HeavyHitters,
        tracing: Tracing | None = None,
        contacted: Callable[[str], None] = lambda server: None,
    ) -> None:
        self.service = service
        self.history = history
        self.clock = sources.monotonic
        self.wall = sources.wall
        self._busy_users = busy_users
        self.timeout_secs = timeout_secs
        self._performer = performer
        self._metrics = metrics
        self._dispatch = dispatch
        self._sources = sources
        self._tracing = tracing
        self._contacted = contacted

    async def run(self, request: Request, deadline: float) -> Result:
        """Return the result of the request's operation; an unexpected exception becomes a 500.

        `deadline` is in the time of `anyio.current_time`.
        """
        begun = self.begin(request)
        return begun if isinstance(begun, Response) else await self.finish(request, begun, deadline)

    def begin(self, request: Request) -> Response | Begun:
        """Run the request's operation up to its first effect.

        Returns the response of an operation without effects; the caller has to pass any other result to `finish`. With tracing
        on, `finish` runs the whole operation.
        """
        operation = self._dispatch(self._context(), request)
        if self._tracing is not None:
            return operation, None
        try:
            return operation, next(operation)
        except StopIteration as end:
            result: Result = end.value
            return result if isinstance(result, Response) else (result, None)
        except Exception:  # a defect of the server: logged with its traceback; the client gets a typed 500
            return self._failed(request)

    async def finish(self, request: Request, begun: Begun, deadline: float) -> Result:
        """Run the rest of an operation that `begin` returned, and return its result."""
        operation, effect = begun
        if isinstance(operation, OpenStream | OpenGateway):
            return operation
        if self._tracing is None:
            return await self._finish(request, operation, effect, deadline)
        with self._tracing.request(request) as span:
            result = await self._finish(request, operation, effect, deadline)
            route = result.route or "unmatched"
            span.update_name(f"{request.shown_method} {route}")
            span.set_attribute("http.route", route)
            span.set_attribute("http.response.status_code", result.status if isinstance(result, Response) else 101)
        return result

    async def _finish(
        self, request: Request, operation: Operation[Result], effect: Effect[Any] | None, deadline: float
    ) -> Result:
        try:
            return await self._performer.run(operation, request.request_id, deadline, effect)
        except Exception:
            return self._failed(request)

    def _failed(self, request: Request) -> Response:
        log.exception("operation failed", method=request.shown_method)
        return error_response(ErrorCode.SERVER_ERROR, request.request_id)

    async def perform(self, operation: Callable[[Context], Operation[T]], request_id: str, deadline: float) -> T:
        """Run `operation` to its end and return its result. Its exceptions are raised unchanged."""
        return await self._performer.run(operation(self._context()), request_id, deadline)

    def _context(self) -> Context:
        sources = self._sources
        return Context(self.clock(), int(sources.wall() * 1000), sources.random_bytes, self.service)

    def not_authenticated(self, cause: str) -> None:
        """Count a 401 by its cause."""
        self._metrics.not_authenticated(cause)

    def completed(self, request: Request, result: Result, started: float) -> None:
        """Count and log a finished request. `started` is in monotonic seconds."""
        now = self.clock()
        elapsed = now - started
        method, client, status = request.shown_method, request.client_address, 101
        user_id = result.user_id if not isinstance(result, OpenGateway) else None
        error = reason = detail = cause = None
        if isinstance(result, Response):
            status, error, reason = result.status, result.error, result.rejection
            detail, cause = result.detail, result.log_cause
            if result.peer is not None:
                self._metrics.federation.count_request(*result.peer)
                self._contacted(result.peer[0])
        if user_id is not None and status != 401:
            self._busy_users.count(user_id, now)
        ended_at, request_id, route = self.wall(), request.request_id, result.route
        self.history.add(
            FinishedRequest(
                ended_at, request_id, method, route, status, elapsed, client, user_id, error, reason, detail, cause
            )
        )
        refused: dict[str, Any] = {}
        if reason is not None:
            self._metrics.rejected(reason)
            refused["rejection"] = reason
        if cause is not None:
            refused["cause"] = cause
            if status == 401:
                self.not_authenticated(cause)
        if request.method != "OPTIONS":  # browsers' preflights are not counted (PROTOCOL 11.2.3)
            self._metrics.http_request(route, status, elapsed)
        log_access(
            request_id,
            method=method,
            route=route,
            status=status,
            latency_ms=round(elapsed * 1000, 2),
            client=client,
            refused=refused,
        )

"""Runs the operation of a request, traced, counted and logged, whatever it came by: HTTP or a gateway socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import structlog

from openguild_proto.effects import Operation
from openguild_proto.errors import ErrorCode
from openguild_proto.http.message import OpenGateway, OpenStream, Request, Response
from openguild_proto.http.refusal import error_response
from openguild_proto.operations.context import Context, Service
from openguild_runtime.effects.performer import Performer
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.observability.tracing import Tracing
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy

T = TypeVar("T")

Result: TypeAlias = Response | OpenStream | OpenGateway
Dispatch = Callable[[Context, Request], Operation[Result]]

log = structlog.get_logger("openguild.http")


class RequestRunner:
    """`timeout_secs`: from a request's last byte to its response."""

    def __init__(
        self,
        *,
        service: Service,
        performer: Performer,
        metrics: Metrics,
        dispatch: Dispatch,
        sources: ClocksAndEntropy,
        timeout_secs: float,
        tracing: Tracing | None = None,
    ) -> None:
        self.service = service
        self.clock = sources.monotonic
        self.timeout_secs = timeout_secs
        self._performer = performer
        self._metrics = metrics
        self._dispatch = dispatch
        self._sources = sources
        self._tracing = tracing

    async def run(self, request: Request, deadline: float) -> Result:
        """Return what the request's operation returns; a failure of ours is a 500. `deadline`: as `anyio.current_time`."""
        if self._tracing is None:
            return await self._run(request, deadline)
        with self._tracing.request(request) as span:
            result = await self._run(request, deadline)
            route = result.route or "unmatched"
            span.update_name(f"{request.shown_method} {route}")
            span.set_attribute("http.route", route)
            span.set_attribute("http.response.status_code", result.status if isinstance(result, Response) else 101)
        return result

    async def _run(self, request: Request, deadline: float) -> Result:
        try:
            return await self.perform(lambda ctx: self._dispatch(ctx, request), request.request_id, deadline)
        except Exception:  # a defect of ours: logged with its traceback; the client gets a typed 500
            log.exception("operation failed", method=request.shown_method)
            return error_response(ErrorCode.SERVER_ERROR, request.request_id)

    async def perform(self, operation: Callable[[Context], Operation[T]], request_id: str, deadline: float) -> T:
        """Drive an operation to its end. Raises what it raises."""
        context = Context(
            now=self.clock(),
            wall_ms=int(self._sources.wall() * 1000),
            entropy=self._sources.random_bytes,
            service=self.service,
        )
        return await self._performer.run(operation(context), request_id, deadline)

    def completed(self, request: Request, result: Result, started: float) -> None:
        """Count and log a request; `started`: on the monotonic clock."""
        elapsed = self.clock() - started
        refused: dict[str, Any] = {}
        if not isinstance(result, Response):
            status = 101
        else:
            status = result.status
            if result.rejection is not None:
                self._metrics.rejected(result.rejection)
                refused["rejection"] = result.rejection
        if request.method != "OPTIONS":  # a browser's preflight is no request of a client (PROTOCOL 11.2.3)
            self._metrics.http_request(result.route, status, elapsed)
        log.info(
            "request completed",
            method=request.shown_method,
            route=result.route,
            status=status,
            latency_ms=round(elapsed * 1000, 2),
            client=request.client_address,
            **refused,
        )

"""Operational endpoints (PROTOCOL 11.1, 11.2)."""

from __future__ import annotations

from openguild_proto.effects import CheckReadiness, Operation, RenderMetrics
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.http.message import Request, Response
from openguild_proto.operations.context import Context

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def health(ctx: Context, request: Request) -> Operation[Response]:
    """GET /health: the process answers."""
    del ctx, request
    yield from ()
    return Response.text("ok")


def live(ctx: Context, request: Request) -> Operation[Response]:
    """GET /live: the loop turns; the liveness probe."""
    del ctx, request
    yield from ()
    return Response.text("ok")


def ready(ctx: Context, request: Request) -> Operation[Response]:
    """GET /ready: 200 `ready` or `degraded`, 503 `unavailable` or `draining`."""
    del ctx, request
    readiness = yield from CheckReadiness()
    serving = readiness.status in {"ready", "degraded"}
    headers = () if serving else (("retry-after", "1"),)
    return Response.json(readiness, status=200 if serving else 503, headers=headers)


def version(ctx: Context, request: Request) -> Operation[Response]:
    """GET /version"""
    del request
    yield from ()
    return Response.json({"version": ctx.service.settings.version})


def metrics(ctx: Context, request: Request) -> Operation[Response]:
    """GET /metrics: Prometheus text, unless metrics are off or have a listener of their own."""
    del ctx, request
    body = yield from RenderMetrics()
    if body is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return Response(status=200, body=body, content_type=METRICS_TYPE)


def not_implemented(ctx: Context, request: Request, **params: str) -> Operation[Response]:
    """Federation and MLS come later (PROTOCOL 13.3)."""
    del ctx, request, params
    yield from ()
    raise Refusal(ErrorCode.NOT_IMPLEMENTED)

"""Operational endpoints (PROTOCOL 11.1, 11.2)."""

from __future__ import annotations

from openguild_proto.effects.base import Operation
from openguild_proto.effects.process import CheckReadiness, Readiness, RenderMetrics
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.http.message import Response
from openguild_proto.operations.call import Call
from openguild_proto.operations.route import Media, route
from openguild_proto.schemas.accounts import Version

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

OK = Media("text/plain", {"const": "ok"})
METRICS = Media("text/plain", {"type": "string", "description": "Prometheus text format 0.0.4"})


@route("GET", "/health", "Check that the process answers", {200: OK}, auth="none", query=None, client=False)
def health(call: Call[None, None]) -> Operation[Response]:
    """Respond while the process runs."""
    del call
    yield from ()
    return Response.text("ok")


@route("GET", "/live", "Liveness probe", {200: OK}, auth="none", query=None, client=False)
def live(call: Call[None, None]) -> Operation[Response]:
    """Respond while the event loop runs: the liveness probe."""
    del call
    yield from ()
    return Response.text("ok")


@route("GET", "/ready", "Readiness probe", {200: Readiness, 503: Readiness}, auth="none", query=None, client=False)
def ready(call: Call[None, None]) -> Operation[Response]:
    """Respond with 200 `ready` or `degraded`, or 503 `unavailable` or `draining`."""
    del call
    readiness = yield from CheckReadiness()
    serving = readiness.status in {"ready", "degraded"}
    headers = () if serving else (("retry-after", "1"),)
    return Response.json(readiness, status=200 if serving else 503, headers=headers)


@route("GET", "/version", "Version of the server", {200: Version}, auth="none", query=None, client=False)
def version(call: Call[None, None]) -> Operation[Response]:
    """Show the version of the server."""
    yield from ()
    return Response.json(Version(call.ctx.service.settings.version))


@route(
    "GET", "/metrics", "Prometheus metrics", {200: METRICS},
    auth="none", query=None, errors=(ErrorCode.NOT_FOUND,), client=False,
)  # fmt: skip
def metrics(call: Call[None, None]) -> Operation[Response]:
    """Render the metrics, unless they are off or have their own listener."""
    del call
    body = yield from RenderMetrics()
    if body is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return Response(status=200, body=body, content_type=METRICS_TYPE)


@route("GET", "/mls/key-packages", "MLS", {501: None}, auth="none", query=None, client=False)
@route("GET", "/mls/handshake-test-vectors", "MLS", {501: None}, auth="none", query=None, client=False)
@route("POST", "/mls/key-packages/{identity}/rotate", "MLS", {501: None}, auth="none", query=None, client=False)
def not_implemented(call: Call[None, None], **params: str) -> Operation[Response]:
    """Refuse MLS, which comes later (PROTOCOL 13.3)."""
    del call, params
    yield from ()
    raise Refusal(ErrorCode.NOT_IMPLEMENTED)

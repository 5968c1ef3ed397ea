"""From a request to its operation, and from every refusal to the typed answer."""

from __future__ import annotations

import msgspec

from openguild_proto.effects import Operation, Overloaded, StorageUnavailable
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import OpenStream, Request, Response
from openguild_proto.http.refusal import refusal_response
from openguild_proto.limits import OVERLOADED_RETRY_SECS, UNAVAILABLE_RETRY_SECS
from openguild_proto.operations import routes
from openguild_proto.operations.auth import authenticate, authenticate_socket
from openguild_proto.operations.context import Context
from openguild_proto.operations.routing import BadParameter, WrongMethod

METRICS_ROUTE = "/metrics"


def dispatch(ctx: Context, request: Request) -> Operation[Response | OpenStream]:
    """Run the operation that answers `request`. Refusals and unavailable stores become typed responses;
    any other exception is a defect and comes out."""
    template = "unmatched"
    try:
        if request.method == "OPTIONS":
            return Response(status=200)  # CORS headers are the policy's (PROTOCOL 2.6.4)
        matched = routes.match(request.method, request.path)
        if matched is None:
            raise Refusal(ErrorCode.NOT_FOUND)
        template = matched.template
        if isinstance(matched, WrongMethod):
            raise Refusal(ErrorCode.METHOD_NOT_ALLOWED, headers=(("allow", matched.allow),))
        if isinstance(matched, BadParameter):
            yield from _require_token(ctx, request, matched.route.auth)
            raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem(matched.name, matched.message),))
        if len(request.body) > matched.route.max_body_bytes:
            raise Refusal(ErrorCode.TOO_LARGE, f"the request body is over {matched.route.max_body_bytes} bytes")
        result: Response | OpenStream = yield from matched.route.operation(ctx, request, **matched.params)
        return msgspec.structs.replace(result, route=template)
    except Refusal as refusal:
        return refusal_response(refusal, request.request_id, route=template)
    except Overloaded:
        full = Refusal(ErrorCode.OVERLOADED, retry_after_secs=OVERLOADED_RETRY_SECS)
        return refusal_response(full, request.request_id, route=template)
    except StorageUnavailable:
        away = Refusal(ErrorCode.DATABASE_UNAVAILABLE, retry_after_secs=UNAVAILABLE_RETRY_SECS)
        return refusal_response(away, request.request_id, route=template)


def _require_token(ctx: Context, request: Request, auth: str) -> Operation[None]:
    """Where a route needs one: who has none is told so before anything about the request (PROTOCOL 3.2.2)."""
    if auth == "socket":
        yield from authenticate_socket(ctx, request)
    elif auth == "bearer":
        yield from authenticate(ctx, request)


def dispatch_metrics(ctx: Context, request: Request) -> Operation[Response | OpenStream]:
    """What a listener for metrics alone answers: `GET /metrics`, and 404 for everything else."""
    if request.path == METRICS_ROUTE:
        return (yield from dispatch(ctx, request))
    return refusal_response(Refusal(ErrorCode.NOT_FOUND), request.request_id)

"""Runs the operation of a request, and turns every refusal into a typed response.

Enforces what the route declares, in this order: the length of the body, the upgrade, the token, the limits of the account,
the parameters of the path, the rights, the query, whether the configuration offers it, and the body. A stream's place is
reserved last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from openguild_proto.effects.base import Operation, Overloaded, StorageUnavailable
from openguild_proto.errors import ErrorCode, FieldProblem, LocalProtocolError, Refusal
from openguild_proto.http.message import OpenGateway, OpenStream, Request, Response
from openguild_proto.http.refusal import refusal_response
from openguild_proto.limits import CONNECTION_LIMIT_RETRY_SECS, OVERLOADED_RETRY_SECS, UNAVAILABLE_RETRY_SECS
from openguild_proto.operations import routes
from openguild_proto.operations.attempts import attempt_from
from openguild_proto.operations.auth import authenticate, authenticate_socket, confirmed_claims
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Context, Limit
from openguild_proto.operations.route import Route
from openguild_proto.operations.router import BadParameter, Matched, WrongMethod
from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.schemas.decode import decode_body, parse_query

METRICS_ROUTE = "/metrics"
UPGRADE = (("upgrade", "websocket"), ("sec-websocket-version", "13"))


def dispatch(ctx: Context, request: Request) -> Operation[Response | OpenStream | OpenGateway]:
    """Run the operation of `request`. A Refusal or an unavailable store becomes a typed response; other exceptions are bugs
    and propagate."""
    template = "unmatched"
    uncounted: tuple[ErrorCode, ...] = ()
    try:
        if request.method == "OPTIONS":
            return Response(status=200)  # the header policy adds the CORS headers (PROTOCOL 2.6.4)
        matched = routes.match(request.method, request.path)
        if matched is None:
            raise Refusal(ErrorCode.NOT_FOUND)
        template = matched.template
        if isinstance(matched, WrongMethod):
            raise Refusal(ErrorCode.METHOD_NOT_ALLOWED, headers=(("allow", matched.allow),))
        route, params = matched.route, {} if isinstance(matched, BadParameter) else matched.params
        uncounted = route.uncounted
        call: Call[Any, Any] = Call(ctx, request, route.rights, params)
        good = isinstance(matched, Matched)
        if good:
            _check_head(request, route)
        if route.needs_token:
            claims = confirmed_claims(ctx, request) if route.auth == "bearer" else None
            if claims is None:
                yield from _authenticate(call, route)
            else:
                call.claims = claims
            for limit in route.limits:
                if limit.window is not None:
                    _count(call, limit, limit.window)
            if good and not route.rights.late:
                yield from call.permit()
        if isinstance(matched, BadParameter):
            raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem(matched.name, matched.message),))
        if request.query and route.query is not None:
            call.query = _decode_query(request, route)
        if route.refused_by is not None and (code := route.refused_by(ctx.service.settings)) is not None:
            raise Refusal(code)
        if route.body is not None:
            call.body = _decode_body(call, route)
        result: Response | OpenStream | OpenGateway = yield from route.operation(call, **params)
        if not call.decided and route.rights.late:
            raise LocalProtocolError(f"{route.name} has responded without a check of {route.permission}")
        if Limit.STREAMS in route.limits:
            _reserve_place(call, route)
        return msgspec.structs.replace(result, route=template)
    except Refusal as refusal:
        if refusal.code in uncounted:
            refusal.reason = None
        return refusal_response(refusal, request.request_id, route=template)
    except Overloaded:
        full = Refusal(ErrorCode.OVERLOADED, retry_after_secs=OVERLOADED_RETRY_SECS)
        return refusal_response(full, request.request_id, route=template)
    except StorageUnavailable:
        unavailable = Refusal(ErrorCode.DATABASE_UNAVAILABLE, retry_after_secs=UNAVAILABLE_RETRY_SECS)
        return refusal_response(unavailable, request.request_id, route=template)


def _check_head(request: Request, route: Route) -> None:
    if len(request.body) > route.max_body_bytes:
        raise Refusal(ErrorCode.TOO_LARGE, f"the request body is over {route.max_body_bytes} bytes")
    if route.auth in {"socket", "gateway"} and not request.is_upgrade:
        raise Refusal(ErrorCode.UPGRADE_REQUIRED, headers=UPGRADE)


def _authenticate(call: Call[Any, Any], route: Route) -> Operation[None]:
    if route.auth == "socket":
        names = [parameter.name for parameter in route.query or ()]
        call.claims, call.subprotocol = yield from authenticate_socket(call.ctx, call.request, names)
    else:
        call.claims = yield from authenticate(call.ctx, call.request)


def _count(call: Call[Any, Any], limit: Limit, name: str) -> None:
    window: SlidingWindow = getattr(call.ctx.service, name)
    wait_secs = window.hit(call.claims.user_id, call.ctx.now)
    if wait_secs is not None:
        raise Refusal(limit.codes[0], retry_after_secs=int(wait_secs) + 1)


def _decode_query(request: Request, route: Route) -> Mapping[str, Any]:
    parameters = route.query or ()
    given = parse_query(request, *[parameter.name for parameter in parameters])
    return {
        parameter.name: parameter.parse(parameter.name, given[parameter.name])
        if parameter.parse is not None
        else given[parameter.name]
        for parameter in parameters
        if parameter.name in given
    }


def _decode_body(call: Call[Any, Any], route: Route) -> Any:
    if route.body is None:
        return None
    if Limit.ATTEMPTS not in route.limits:
        return decode_body(call.request, route.body, required=route.body_required)
    with attempt_from(call.ctx, call.request.client_address):  # a refused body counts as an attempt
        return decode_body(call.request, route.body, required=route.body_required)


def _reserve_place(call: Call[Any, Any], route: Route) -> None:
    """Reserve the place of a socket. The caller of dispatch gives it back, under the stream's address."""
    user_id = call.claims.user_id if route.needs_token else None
    if not call.ctx.service.sockets.reserve(user_id, limit_key(call.request.client_address)):
        raise Refusal(ErrorCode.CONNECTION_LIMIT, retry_after_secs=CONNECTION_LIMIT_RETRY_SECS)


def dispatch_metrics(ctx: Context, request: Request) -> Operation[Response | OpenStream | OpenGateway]:
    """Respond on the metrics listener: to `GET /metrics`, and with 404 to everything else."""
    if request.path == METRICS_ROUTE:
        return (yield from dispatch(ctx, request))
    return refusal_response(Refusal(ErrorCode.NOT_FOUND), request.request_id)

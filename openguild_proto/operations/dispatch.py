"""Runs the operation of a request, and turns every refusal into a typed response.

Enforces the declaration of the route, in this order: the length of the body, the upgrade, the token or the signature, the
limits of the account, the parameters of the path, the rights, the query, whether the configuration offers the route, and the
body. The place of a stream is reserved last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from openguild_proto.effects.base import Operation, Overloaded, StorageUnavailable
from openguild_proto.effects.channels import PageBounds
from openguild_proto.errors import ErrorCode, FieldProblem, LocalProtocolError, Refusal
from openguild_proto.http.message import Headers, OpenGateway, OpenStream, Request, Response
from openguild_proto.http.refusal import refusal_response
from openguild_proto.limits import CONNECTION_LIMIT_RETRY_SECS, OVERLOADED_RETRY_SECS, UNAVAILABLE_RETRY_SECS
from openguild_proto.operations import routes
from openguild_proto.operations.attempts import attempt_from
from openguild_proto.operations.auth import authenticate, authenticate_socket, confirmed_claims
from openguild_proto.operations.call import NO_QUERY, Call
from openguild_proto.operations.context import Context, Limit
from openguild_proto.operations.owners import pass_to_owner
from openguild_proto.operations.rate_limit_headers import rate_limit_headers
from openguild_proto.operations.route import NEED_TOKEN, Route, RunAs
from openguild_proto.operations.router import BadParameter, Matched, WrongMethod
from openguild_proto.operations.servers import require_admitted, require_unrestricted, signed_answer, verified_server
from openguild_proto.operations.timeouts import with_end_of_timeout
from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.policy.token_bucket import TokenBucket
from openguild_proto.schemas.between_servers import UserAnswer
from openguild_proto.schemas.decode import decode_body, parse_query

METRICS_ROUTE = "/metrics"
SOCKETS = frozenset({"socket", "gateway"})
UPGRADE = (("upgrade", "websocket"), ("sec-websocket-version", "13"))


def dispatch(
    ctx: Context, request: Request, remote: RunAs | None = None
) -> Operation[Response | OpenStream | OpenGateway]:
    """Run the operation of `request`, and sign responses to other servers.

    A Refusal or an unavailable store becomes a typed response; other exceptions are bugs and propagate.
    """
    template = "unmatched"
    uncounted: tuple[ErrorCode, ...] = ()
    limits: tuple[Limit, ...] = ()  # reported to the caller in headers
    user_id: str | None = None
    call: Call[Any, Any] | None = None
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
        call = Call(ctx, request, route, params)
        good, needs_token = isinstance(matched, Matched), route.auth in NEED_TOKEN
        if good and (request.body or route.auth in SOCKETS):
            _check_head(request, route)
        if remote is not None:
            if not (route.is_for_remote and good):
                raise Refusal(ErrorCode.NOT_FOUND)
            call.claims, call.home = remote.claims, remote.caller
        elif route.auth == "server":
            try:
                call.peer = yield from verified_server(ctx, request)
            except Refusal as refusal:
                if refusal.code is ErrorCode.NOT_IMPLEMENTED and route.when_off is not None:
                    refusal.members = route.when_off(request, params, ctx.service.settings.server_name)
                raise
            require_admitted(ctx, call.peer, request)
        elif needs_token:
            claims = confirmed_claims(ctx, request) if route.auth == "bearer" else None
            if claims is None:
                yield from _authenticate(call, route)
            else:
                call.claims = claims
            user_id = call.claims.user_id
        for limit in route.limits:
            if limit.policies:
                limits = route.limits
            if limit.by_dispatch is not None:
                _count(call, limit, limit.by_dispatch)
        if needs_token and good and not route.rights.late:
            if route.page_of is not None:
                _prepare_page(call, route.page_of)
            yield from call.permit()
            if remote is not None:
                require_unrestricted(ctx, remote.caller, call.guild_id, reads=request.method == "GET")
            owner = call.owner
            if owner is not None and (route.is_answered_by_owner or call.is_remote):
                return (yield from _answer_of_owner(call, owner, template))
        if isinstance(matched, BadParameter):
            raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem(matched.name, matched.message),))
        if request.query and route.query is not None and call.query is NO_QUERY:
            call.query = _decode_query(request, route)
        if route.refused_by is not None and (code := route.refused_by(ctx.service.settings)) is not None:
            raise Refusal(code)
        if route.body is not None:
            call.body = _decode_body(call, route)
        found: Response | OpenStream | OpenGateway | RunAs = yield from route.operation(call, **params)
        result = (yield from _run_as(ctx, found)) if isinstance(found, RunAs) else found
        if not call.decided and route.rights.late:
            raise LocalProtocolError(f"{route.name} has responded without a check of {route.permission}")
        if Limit.STREAMS in route.limits:
            _reserve_place(call, route)
        told = _told(ctx, request, limits, user_id) if limits else ()
        if isinstance(result, Response):
            answered = msgspec.structs.replace(result, route=template, headers=result.headers + told, user_id=user_id)
            return answered if call.peer is None else _signed(call, answered)
        return msgspec.structs.replace(result, route=template, headers=result.headers + told)
    except Refusal as refusal:
        given = (yield from with_end_of_timeout(call, refusal)) if call is not None else refusal
        if given.code in uncounted:
            given.reason = None
        refused = refusal_response(given, request.request_id, route=template)
        told = _told(ctx, request, limits, user_id)
        whose = user_id or refused.user_id
        return _signed(call, msgspec.structs.replace(refused, headers=refused.headers + told, user_id=whose))
    except Overloaded:
        full = Refusal(ErrorCode.OVERLOADED, wait_secs=OVERLOADED_RETRY_SECS)
        answered = msgspec.structs.replace(refusal_response(full, request.request_id, route=template), user_id=user_id)
        return _signed(call, answered)
    except StorageUnavailable:
        away = Refusal(ErrorCode.DATABASE_UNAVAILABLE, wait_secs=UNAVAILABLE_RETRY_SECS)
        answered = msgspec.structs.replace(refusal_response(away, request.request_id, route=template), user_id=user_id)
        return _signed(call, answered)


def _signed(call: Call[Any, Any] | None, response: Response) -> Response:
    """Sign the response if the caller is an authenticated server."""
    return signed_answer(call.ctx, call.peer, response) if call is not None and call.peer is not None else response


def _answer_of_owner(call: Call[Any, Any], owner: str, template: str) -> Operation[Response]:
    answer = yield from pass_to_owner(call, owner)
    return msgspec.structs.replace(answer, route=template)


def _run_as(ctx: Context, asked: RunAs) -> Operation[Response]:
    """Run a client route for a user of another server, and return its response (PROTOCOL 16.7.2)."""
    answer = yield from dispatch(ctx, asked.request, asked)
    if not isinstance(answer, Response):
        raise Refusal(ErrorCode.NOT_FOUND)
    body = answer.body.decode() if answer.body else None
    return Response.json(UserAnswer(answer.status, dict(answer.headers), body))


def _told(ctx: Context, request: Request, limits: tuple[Limit, ...], user_id: str | None) -> Headers:
    return rate_limit_headers(ctx.service, limits, user_id=user_id, address=request.client_address, now=ctx.now)


def _check_head(request: Request, route: Route) -> None:
    if len(request.body) > route.max_body_bytes:
        raise Refusal(ErrorCode.TOO_LARGE, f"the request body is over {route.max_body_bytes} bytes")
    if route.auth in SOCKETS and not request.is_upgrade:
        raise Refusal(ErrorCode.UPGRADE_REQUIRED, headers=UPGRADE)


def _authenticate(call: Call[Any, Any], route: Route) -> Operation[None]:
    if route.auth == "socket":
        names = [parameter.name for parameter in route.query or ()]
        call.claims, call.subprotocol = yield from authenticate_socket(call.ctx, call.request, names)
    else:
        call.claims = yield from authenticate(call.ctx, call.request)


def _count(call: Call[Any, Any], limit: Limit, name: str) -> None:
    window: SlidingWindow | TokenBucket = getattr(call.ctx.service, name)
    wait_secs = window.hit(call.claims.user_id, call.ctx.now)
    if wait_secs is not None:
        raise limit.refusal(wait_secs)


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


def _prepare_page(call: Call[Any, Any], page_of: Callable[[Mapping[str, Any]], PageBounds | None]) -> None:
    """Decode the query early, so that its page is read together with the rights.

    An invalid query is refused later, after the checks of the rights.
    """
    try:
        call.query = _decode_query(call.request, call.route) if call.request.query else NO_QUERY
    except Refusal:
        return
    call.page = page_of(call.query)


def _decode_body(call: Call[Any, Any], route: Route) -> Any:
    if route.body is None:
        return None
    if Limit.ATTEMPTS not in route.limits:
        return decode_body(call.request, route.body, required=route.body_required)
    with attempt_from(call.ctx, call.request.client_address):  # a refused body counts as an attempt
        return decode_body(call.request, route.body, required=route.body_required)


def _reserve_place(call: Call[Any, Any], route: Route) -> None:
    """Reserve a place for a socket. The caller of `dispatch` releases it, with the address of the stream."""
    user_id = call.claims.user_id if route.needs_token else None
    if not call.ctx.service.sockets.reserve(user_id, limit_key(call.request.client_address)):
        raise Limit.STREAMS.refusal(CONNECTION_LIMIT_RETRY_SECS)


def dispatch_metrics(ctx: Context, request: Request) -> Operation[Response | OpenStream | OpenGateway]:
    """Respond on the metrics listener: to `GET /metrics`, and with 404 to all other requests."""
    if request.path == METRICS_ROUTE:
        return (yield from dispatch(ctx, request))
    return refusal_response(Refusal(ErrorCode.NOT_FOUND), request.request_id)

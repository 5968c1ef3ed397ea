"""Authenticates the bearer token of a request or a socket (PROTOCOL 4.5, 8.2)."""

from __future__ import annotations

from collections.abc import Iterable

from openguild_proto.effects.accounts import FindSession
from openguild_proto.effects.base import Operation
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.http.message import Request
from openguild_proto.operations.context import Context
from openguild_proto.schemas.decode import parse_query
from openguild_proto.sessions.tokens import Claims, TokenInvalid
from openguild_proto.ws.handshake import bearer_subprotocol


def authenticate(ctx: Context, request: Request) -> Operation[Claims]:
    """Return the claims of an active session. Raises Refusal 401."""
    claims = yield from live_claims(ctx, bearer_token(request))
    if claims is None:
        raise Refusal(ErrorCode.UNAUTHORIZED)
    return claims


def confirmed_claims(ctx: Context, request: Request) -> Claims | None:
    """Return the claims of a bearer token that the store has confirmed before, without a query; None: call `authenticate`."""
    token = bearer_token(request)
    try:
        return ctx.service.tokens.confirmed_claims(token, ctx.wall_ms) if token is not None else None
    except TokenInvalid:
        return None


def authenticate_socket(
    ctx: Context, request: Request, parameters: Iterable[str]
) -> Operation[tuple[Claims, str | None]]:
    """Authenticate by the header, else by the subprotocol, else by `access_token` in the query.

    `parameters`: the names that the query may have. Return the claims and the subprotocol to echo. Raises Refusal 401.
    """
    subprotocol_token, subprotocol = bearer_subprotocol(request)
    for token in (bearer_token(request), subprotocol_token, _query_token(request, parameters)):
        claims = yield from live_claims(ctx, token)
        if claims is not None:
            return claims, subprotocol
    raise Refusal(ErrorCode.UNAUTHORIZED)


def _query_token(request: Request, parameters: Iterable[str]) -> str | None:
    """Return the token of the query; None also for an invalid query, which is reported after authentication (PROTOCOL 3.2.2)."""
    try:
        return parse_query(request, *parameters).get("access_token")
    except Refusal:
        return None


def bearer_token(request: Request) -> str | None:
    """Return the token of `Authorization: Bearer ...`, spelled `Bearer` or `bearer`."""
    values = request.all_headers("authorization")
    if len(values) != 1:
        return None
    scheme, _, token = values[0].strip().partition(" ")
    token = token.strip()
    return token if scheme in {"Bearer", "bearer"} and token and token.isascii() and token.isprintable() else None


def live_claims(ctx: Context, token: str | None) -> Operation[Claims | None]:
    """Return the claims of a token of an active session; None: it is not valid."""
    if token is None or not token.strip():
        return None
    tokens = ctx.service.tokens
    try:
        claims = tokens.verify(token, ctx.wall_ms)
    except TokenInvalid:
        return None
    if not tokens.is_confirmed(token):
        session = yield from FindSession(session_id=claims.session_id)
        if session is None or session.revoked or session.user_id != claims.user_id or session.username is None:
            return None  # revoked, or the account is deleted (PROTOCOL 4.3.4, 4.1.5)
        tokens.confirm(token)
    return claims

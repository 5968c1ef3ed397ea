"""Authenticates the bearer token of a request or a socket (PROTOCOL 4.5, 8.2)."""

from __future__ import annotations

from collections.abc import Iterable

from openguild_proto.effects.accounts import FindSession
from openguild_proto.effects.base import Operation
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.http.message import Request
from openguild_proto.operations.context import Context
from openguild_proto.schemas.decode import parse_query
from openguild_proto.sessions.tokens import Claims, TokenInvalid, TokenProblem
from openguild_proto.ws.handshake import bearer_subprotocol


def authenticate(ctx: Context, request: Request) -> Operation[Claims]:
    """Return the claims of an active session. Raises Refusal 401."""
    try:
        return (yield from live_claims(ctx, bearer_token(request)))
    except TokenInvalid as invalid:
        raise unauthorized(invalid.problem, invalid.user_id) from None


def unauthorized(problem: TokenProblem, user_id: str | None = None) -> Refusal:
    """Return the refusal 401. Only the operator sees the problem and the token's user."""
    return Refusal(ErrorCode.UNAUTHORIZED, log_cause=problem.value, log_user=user_id)


def confirmed_claims(ctx: Context, request: Request) -> Claims | None:
    """Return the claims of a bearer token that the store has already confirmed, without a query, or None: call `authenticate`."""
    token = bearer_token(request)
    try:
        return ctx.service.tokens.confirmed_claims(token, ctx.wall_ms) if token is not None else None
    except TokenInvalid:
        return None


def authenticate_socket(
    ctx: Context, request: Request, parameters: Iterable[str]
) -> Operation[tuple[Claims, str | None]]:
    """Authenticate by the header, else by the subprotocol, else by `access_token` in the query.

    `parameters`: the names allowed in the query. Return the claims and the subprotocol to echo. Raises Refusal 401.
    """
    subprotocol_token, subprotocol = bearer_subprotocol(request)
    problem, user_id = TokenProblem.MISSING, None
    for token in (bearer_token(request), subprotocol_token, query_token(request, parameters)):
        try:
            return (yield from live_claims(ctx, token)), subprotocol
        except TokenInvalid as invalid:
            if problem is TokenProblem.MISSING:
                problem, user_id = invalid.problem, invalid.user_id
    raise unauthorized(problem, user_id)


def query_token(request: Request, parameters: Iterable[str]) -> str | None:
    """Return the token in the query. None for an invalid query, which is reported after authentication (PROTOCOL 3.2.2)."""
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


def live_claims(ctx: Context, token: str | None) -> Operation[Claims]:
    """Return the claims of a token with an active session. Raises TokenInvalid."""
    if token is None or not token.strip():
        raise TokenInvalid(TokenProblem.MISSING)
    tokens = ctx.service.tokens
    claims = tokens.verify(token, ctx.wall_ms)
    if not tokens.is_confirmed(token):
        session = yield from FindSession(session_id=claims.session_id)
        if session is None or session.user_id != claims.user_id:
            raise TokenInvalid(TokenProblem.UNKNOWN_SESSION, claims.user_id)
        if session.revoked or session.username is None:  # the account is deleted (PROTOCOL 4.3.4, 4.1.5)
            raise TokenInvalid(TokenProblem.REVOKED, claims.user_id)
        tokens.confirm(token)
    return claims

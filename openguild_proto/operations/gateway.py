"""Opens gateway sockets, and authenticates them afterwards (PROTOCOL 15.1, 15.2)."""

from __future__ import annotations

from typing import NamedTuple

from openguild_proto.effects.base import Operation
from openguild_proto.effects.logs import FindAccountMemberships
from openguild_proto.gateway.frames import LogHead, Ready, ReadySession, ReadyUser
from openguild_proto.gateway.negotiation import negotiate
from openguild_proto.http.message import OpenGateway
from openguild_proto.log.log_names import LogKind, log_name
from openguild_proto.operations.auth import bearer_token, live_claims, query_token, unauthorized
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Context, Limit
from openguild_proto.operations.route import route
from openguild_proto.policy.addresses import limit_key
from openguild_proto.schemas.guilds import Guild
from openguild_proto.sessions.tokens import Claims, TokenInvalid, TokenProblem
from openguild_proto.timestamps import from_millis


class Authenticated(NamedTuple):
    """The user of a gateway socket, and the contents of `ready`."""

    claims: Claims
    ready: Ready


@route(
    "GET", "/gateway", "Open the gateway", {101: None},
    auth="gateway", query=None, limits=(Limit.STREAMS,),
)  # fmt: skip
def open_gateway(call: Call[None, None]) -> Operation[OpenGateway]:
    """Open a gateway socket. A token in the header or in the subprotocol replaces the first frame; the socket reports a fault of
    the token."""
    yield from ()
    chosen = negotiate(call.request)
    return OpenGateway(
        encoding=chosen.encoding.value,
        subprotocol=chosen.subprotocol,
        address=limit_key(call.request.client_address),
        token=bearer_token(call.request) or chosen.token or query_token(call.request, ("access_token",)),
        request_id=call.request.request_id,
    )


def authenticate_gateway(ctx: Context, token: str, *, renews: bool = False) -> Operation[Authenticated]:
    """Authenticate a gateway socket. `renews`: it is authenticated already, and gets no list of guilds. Raises Refusal 401."""
    try:
        claims = yield from live_claims(ctx, token)
    except TokenInvalid as invalid:
        raise unauthorized(invalid.problem) from None
    user_id = claims.user_id
    user = ReadyUser(user_id, claims.username or user_id)
    session = ReadySession(claims.session_id, from_millis(claims.expires_at_us // 1_000))
    if renews:  # may be frequent, and a user may have a thousand guilds
        return Authenticated(claims, Ready(user, session, [], []))
    account = yield from FindAccountMemberships(user_id=user_id)
    if account is None:  # deleted meanwhile
        raise unauthorized(TokenProblem.REVOKED)
    heads = [LogHead(log_name(LogKind.USER, user_id), account.place.epoch, account.place.sequence)]
    heads += [
        LogHead(log_name(LogKind.GUILD, place.log_id), place.epoch, place.sequence) for _, place in account.guilds
    ]
    return Authenticated(claims, Ready(user, session, [Guild.of(guild) for guild, _ in account.guilds], heads))

"""Opening a stream, and checking again whether it may stay open (PROTOCOL 8)."""

from __future__ import annotations

from openguild_proto.effects import FindChannelAccess, FindSession, Operation
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import OpenStream, Request
from openguild_proto.limits import CONNECTION_LIMIT_RETRY_SECS
from openguild_proto.operations.auth import authenticate_socket
from openguild_proto.operations.channels import check_epoch, epoch_header, find_channel
from openguild_proto.operations.context import Context
from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.permissions import Permission, require_channel
from openguild_proto.schemas.decode import integer_parameter, parse_query
from openguild_proto.sessions.tokens import Claims
from openguild_proto.ws.close_codes import CloseCode


def _require_upgrade(request: Request) -> None:
    if not request.is_upgrade:
        raise Refusal(ErrorCode.UPGRADE_REQUIRED, headers=(("upgrade", "websocket"), ("sec-websocket-version", "13")))


def _reserve(ctx: Context, request: Request, claims: Claims) -> str:
    """Last of all checks: whoever gets the place must give it back, under the address that is returned."""
    address = limit_key(request.client_address)
    if not ctx.service.sockets.reserve(claims.user_id, address):
        raise Refusal(ErrorCode.CONNECTION_LIMIT, retry_after_secs=CONNECTION_LIMIT_RETRY_SECS)
    return address


def open_channel_stream(ctx: Context, request: Request, channel_id: str) -> Operation[OpenStream]:
    """GET /channels/{channel_id}/ws?since=&epoch=: `since` is exclusive; one that is no place in the log is refused before
    the upgrade: beyond the head, or of another epoch (PROTOCOL 7.2.3, 8.3.3)."""
    _require_upgrade(request)
    claims, subprotocol = yield from authenticate_socket(ctx, request)
    access = yield from find_channel(channel_id, claims.user_id, Permission.READ)
    query = parse_query(request, "since", "epoch", "access_token", "client_id")
    since = integer_parameter(query, "since", clamp=True)
    if since is not None and since < 0:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("since", "must not be negative"),))
    check_epoch(query, since, access.channel)
    if since is not None and since > access.head:
        raise Refusal(
            ErrorCode.INVALID_SINCE, details=(FieldProblem("since", f"the newest sequence is {access.head}"),)
        )
    address = _reserve(ctx, request, claims)
    return OpenStream(
        user_id=claims.user_id,
        session_id=claims.session_id,
        verified_by=claims.verified_by,
        expires_ms=claims.expires_at_us // 1000,
        request_id=request.request_id,
        channel_id=channel_id,
        address=address,
        guild_id=access.channel.guild_id,
        since=since,
        head=access.head,
        epoch=access.channel.epoch,
        subprotocol=subprotocol,
        headers=epoch_header(access.channel),
    )


def open_notification_stream(ctx: Context, request: Request) -> Operation[OpenStream]:
    """GET /notifications/ws: what happens while connected, for all the caller may read."""
    _require_upgrade(request)
    claims, subprotocol = yield from authenticate_socket(ctx, request)
    parse_query(request, "since", "access_token", "client_id")
    address = _reserve(ctx, request, claims)
    return OpenStream(
        user_id=claims.user_id,
        session_id=claims.session_id,
        verified_by=claims.verified_by,
        expires_ms=claims.expires_at_us // 1000,
        request_id=request.request_id,
        channel_id=None,
        address=address,
        subprotocol=subprotocol,
    )


def recheck_stream(stream: OpenStream) -> Operation[CloseCode | None]:
    """Whether an open channel stream may go on: None, or the close code that ends it."""
    if stream.channel_id is None:
        return None
    access = yield from FindChannelAccess(channel_id=stream.channel_id, user_id=stream.user_id)
    if access is None:
        return CloseCode.CHANNEL_DELETED
    try:
        require_channel(access, Permission.READ)
    except Refusal:
        return CloseCode.MEMBERSHIP_LOST
    if stream.since is not None and stream.epoch not in (None, access.channel.epoch):
        return CloseCode.SERVICE_RESTART  # its place is one in a log that is no more
    return None


def recheck_session(stream: OpenStream) -> Operation[CloseCode | None]:
    """Whether a stream of any kind may go on when even a revocation may have been missed: None, or the close code."""
    session = yield from FindSession(session_id=stream.session_id)
    if session is None or session.revoked:
        return CloseCode.TOKEN_ENDED
    return (yield from recheck_stream(stream))

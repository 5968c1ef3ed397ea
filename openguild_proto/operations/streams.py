"""Opening a stream, and checking again whether it may stay open (PROTOCOL 8)."""

from __future__ import annotations

from typing import Any

from openguild_proto.effects.accounts import FindSession
from openguild_proto.effects.base import Operation
from openguild_proto.effects.channels import FindChannelAccess
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import OpenStream
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Limit
from openguild_proto.operations.epochs import LOG_EPOCH, check_epoch, epoch_header
from openguild_proto.operations.parameters import ACCESS_TOKEN, CLIENT_ID, EPOCH, INTEGER, SEQUENCE
from openguild_proto.operations.route import Parameter, in_channel, route
from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.permissions import Permission, require_channel
from openguild_proto.records import ChannelAccess
from openguild_proto.schemas.decode import parse_clamped
from openguild_proto.schemas.frames import NotificationFrame, StreamFrame
from openguild_proto.ws.close_codes import CloseCode

SINCE = Parameter(
    "since", SEQUENCE, "the last sequence the client has; beyond the newest: 400 invalid_since", parse_clamped
)


@route(
    "GET", "/channels/{channel_id}/ws", "Stream a channel", {101: None},
    auth="socket", rights=in_channel(Permission.READ), query=(SINCE, EPOCH, ACCESS_TOKEN, CLIENT_ID),
    limits=(Limit.STREAMS,), errors=(ErrorCode.INVALID_SINCE,), response_headers=(LOG_EPOCH,), frames=StreamFrame,
)  # fmt: skip
def open_channel_stream(call: Call[None, ChannelAccess], channel_id: str) -> Operation[OpenStream]:
    """`since` is exclusive; one that is no place in the log is refused before the upgrade: beyond the head, or of another
    epoch (PROTOCOL 7.2.3, 8.3.3)."""
    yield from ()
    access, since = call.access, call.query.get("since")
    if since is not None and since < 0:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("since", "must not be negative"),))
    check_epoch(call.query.get("epoch"), since, access.channel)
    if since is not None and since > access.head:
        raise Refusal(
            ErrorCode.INVALID_SINCE, details=(FieldProblem("since", f"the newest sequence is {access.head}"),)
        )
    return OpenStream(
        **_of_the_caller(call),
        channel_id=channel_id,
        guild_id=access.channel.guild_id,
        since=since,
        head=access.head,
        epoch=access.channel.epoch,
        headers=epoch_header(access.channel),
    )


@route(
    "GET", "/notifications/ws", "Stream notifications", {101: None},
    auth="socket", query=(Parameter("since", INTEGER, "ignored"), ACCESS_TOKEN, CLIENT_ID),
    limits=(Limit.STREAMS,), frames=NotificationFrame,
)  # fmt: skip
def open_notification_stream(call: Call[None, None]) -> Operation[OpenStream]:
    """What happens while connected, for all the caller may read."""
    yield from ()
    return OpenStream(**_of_the_caller(call), channel_id=None)


def _of_the_caller(call: Call[Any, Any]) -> dict[str, Any]:
    claims, request = call.claims, call.request
    return {
        "user_id": claims.user_id,
        "session_id": claims.session_id,
        "verified_by": claims.verified_by,
        "expires_ms": claims.expires_at_us // 1000,
        "request_id": request.request_id,
        "address": limit_key(request.client_address),
        "subprotocol": call.subprotocol,
    }


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

"""Opens streams, and checks later whether they may stay open (PROTOCOL 8)."""

from __future__ import annotations

from typing import Any

from openguild_proto.effects.accounts import FindSession
from openguild_proto.effects.base import Operation
from openguild_proto.effects.channels import FindChannelAccess
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.http.message import OpenStream
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Limit
from openguild_proto.operations.epochs import LOG_EPOCH, check_start, epoch_header, newest_place
from openguild_proto.operations.parameters import ACCESS_TOKEN, CLIENT_ID, EPOCH, SINCE, STRING
from openguild_proto.operations.route import Parameter, in_channel, route
from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.permissions import Permission, require_channel
from openguild_proto.records import ChannelAccess
from openguild_proto.schemas.frames import NotificationFrame, StreamFrame
from openguild_proto.shared_texts import shared
from openguild_proto.ws.close_codes import CloseCode


@route(
    "GET", "/channels/{channel_id}/ws", "Stream a channel", {101: None},
    auth="socket", rights=in_channel(Permission.READ), query=(SINCE, EPOCH, ACCESS_TOKEN, CLIENT_ID),
    limits=(Limit.STREAMS,), errors=(ErrorCode.INVALID_SINCE,), response_headers=(LOG_EPOCH,), frames=StreamFrame,
)  # fmt: skip
def open_channel_stream(call: Call[None, ChannelAccess], channel_id: str) -> Operation[OpenStream]:
    """Open a channel's stream after `since`; an invalid position is refused before the upgrade (PROTOCOL 8.3.3)."""
    yield from ()
    access, since = call.access, call.query.get("since")
    check_start(since, call.query.get("epoch"), newest_place(access), access.channel.base_sequence)
    return OpenStream(
        **_of_the_caller(call),
        channel_id=shared(channel_id),
        guild_id=shared(access.channel.guild_id),
        since=since,
        replay_window=call.ctx.service.settings.messaging.replay_window,
        head=access.head,
        epoch=access.channel.epoch,
        headers=epoch_header(access.channel),
    )


@route(
    "GET", "/notifications/ws", "Stream notifications", {101: None},
    auth="socket", query=(Parameter("since", STRING, "ignored"), ACCESS_TOKEN, CLIENT_ID),
    limits=(Limit.STREAMS,), errors=(ErrorCode.LIMIT_REACHED,), frames=NotificationFrame,
)  # fmt: skip
def open_notification_stream(call: Call[None, None]) -> Operation[OpenStream]:
    """Open the caller's notification stream."""
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
    """Return the close code for a channel stream that must close, or None if it may stay open."""
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
        return CloseCode.SERVICE_RESTART  # its `since` belongs to another log
    return None


def recheck_session(stream: OpenStream) -> Operation[CloseCode | None]:
    """Return the close code for a stream of any kind after control records may have been missed; None: it may stay open.

    A notification stream never stays open: it has no `since` from which missed events could be sent.
    """
    session = yield from FindSession(session_id=stream.session_id)
    if session is None or session.revoked:
        return CloseCode.TOKEN_ENDED
    if stream.channel_id is None:
        return CloseCode.SERVICE_RESTART
    return (yield from recheck_stream(stream))

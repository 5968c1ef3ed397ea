"""Channels: list, create, show, rename, delete (PROTOCOL 5.7)."""

from __future__ import annotations

from msgspec import UNSET

from openguild_proto.effects.base import Operation
from openguild_proto.effects.channels import (
    DeleteChannel,
    FindChannelAccess,
    InsertChannel,
    ListChannels,
    UpdateChannel,
)
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Response
from openguild_proto.operations.call import Call
from openguild_proto.operations.epochs import LOG_PLACE, place_headers
from openguild_proto.operations.idempotency import CREATION_KEY, asked_once
from openguild_proto.operations.ids import new_id
from openguild_proto.operations.paging import NEXT_AFTER, PAGE, asked_page, page_response, start_of
from openguild_proto.operations.parameters import REASON
from openguild_proto.operations.route import in_channel, in_guild, route
from openguild_proto.policy.names import check_name, check_place
from openguild_proto.policy.permissions import Permission
from openguild_proto.records import ChannelAccess, ChannelRecord, GuildAccess, LimitReached, PageCursor
from openguild_proto.schemas.guilds import Channel, ChannelChange, NewChannel


@route(
    "GET", "/guilds/{guild_id}/channels", "List channels", {200: list[Channel]},
    rights=in_guild(Permission.READ), query=PAGE, response_headers=(NEXT_AFTER, *LOG_PLACE),
)  # fmt: skip
def list_channels(call: Call[None, GuildAccess], guild_id: str) -> Operation[Response]:
    """List the channels of the guild."""
    page = asked_page(call.query)

    def find(channel_id: str) -> Operation[PageCursor | None]:
        access = yield from FindChannelAccess(channel_id=channel_id, user_id=call.claims.user_id)
        return _cursor_of(access.channel) if access is not None and access.channel.guild_id == guild_id else None

    after = yield from start_of(page, find)
    channels = yield from ListChannels(
        guild_id=guild_id, limit=page.limit + 1, after=after, reader_id=call.claims.user_id
    )
    return page_response(page, channels, Channel.of, _cursor_of, headers=place_headers(call.access.place))


def _cursor_of(channel: ChannelRecord) -> PageCursor:
    return PageCursor(channel.created_at_ms, channel.channel_id)


@route(
    "POST", "/guilds/{guild_id}/channels", "Create a channel", {200: Channel},
    rights=in_guild(Permission.CREATE_CHANNELS), body=NewChannel,
    errors=(ErrorCode.LIMIT_REACHED, ErrorCode.NONCE_REUSED), request_headers=(CREATION_KEY,),
)  # fmt: skip
def create_channel(call: Call[NewChannel, GuildAccess], guild_id: str) -> Operation[Response]:
    """Create a channel and notify the guild's members (PROTOCOL 5.7.1)."""
    body, ctx = call.body, call.ctx
    name, topic, position = check_name(body.name, "channel_name"), body.topic or "", body.position or 0
    check_place(topic, position)
    channel = yield from InsertChannel(
        author=call.claims.author,
        channel_id=new_id(ctx),
        guild_id=guild_id,
        name=name,
        topic=topic.strip() or None,
        position=position,
        now_ms=ctx.wall_ms,
        limit=ctx.service.settings.guilds.max_channels_per_guild,
        once=asked_once(call.request, "channel", guild_id, name, topic.strip(), position),
    )
    if isinstance(channel, LimitReached):
        raise Refusal(ErrorCode.LIMIT_REACHED, f"a guild has at most {channel.limit} channels")
    return Response.json(Channel.of(channel))


@route("GET", "/channels/{channel_id}", "Show a channel", {200: Channel}, rights=in_channel(Permission.READ))
def show_channel(call: Call[None, ChannelAccess], channel_id: str) -> Operation[Response]:
    """Show a channel."""
    del channel_id
    yield from ()
    return Response.json(Channel.of(call.access.channel))


@route(
    "PATCH", "/channels/{channel_id}", "Change a channel's name, topic or position", {200: Channel},
    rights=in_channel(Permission.RENAME), body=ChannelChange, query=(REASON,),
)  # fmt: skip
def update_channel(call: Call[ChannelChange, ChannelAccess], channel_id: str) -> Operation[Response]:
    """Change the members that the body has; an empty topic removes the topic."""
    body = call.body
    if body.name is UNSET and body.topic is UNSET and body.position is UNSET:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("name", "or topic or position must be given"),))
    check_place(body.topic or "", body.position or 0)  # UNSET is false
    channel = yield from UpdateChannel(
        author=call.claims.author,
        channel_id=channel_id,
        now_ms=call.ctx.wall_ms,
        name=check_name(body.name, "channel_name") if body.name is not UNSET else None,
        topic=body.topic.strip() if body.topic is not UNSET else None,
        position=body.position if body.position is not UNSET else None,
        reason=call.query.get("reason"),
    )
    return Response.json(Channel.of(channel))


@route(
    "DELETE", "/channels/{channel_id}", "Delete a channel", {204: None},
    rights=in_channel(Permission.DELETE), query=(REASON,),
)  # fmt: skip
def delete_channel(call: Call[None, ChannelAccess], channel_id: str) -> Operation[Response]:
    """Delete a channel; its streams close with 4404."""
    yield from DeleteChannel(
        author=call.claims.author, channel_id=channel_id, now_ms=call.ctx.wall_ms, reason=call.query.get("reason")
    )
    return Response.empty()

"""Channels: list, create, show, rename, delete (PROTOCOL 5.7)."""

from __future__ import annotations

from collections.abc import Mapping

from openguild_proto.effects import (
    DeleteChannel,
    FindChannelAccess,
    InsertChannel,
    ListChannels,
    Operation,
    RenameChannel,
)
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import EPOCH_HEADER, Headers, Request, Response
from openguild_proto.operations.auth import authenticate
from openguild_proto.operations.context import Context
from openguild_proto.operations.guilds import guild_access
from openguild_proto.operations.ids import new_id
from openguild_proto.operations.paging import page_response, parse_page, start_of
from openguild_proto.policy.names import check_name
from openguild_proto.policy.permissions import Permission, require_channel
from openguild_proto.records import ChannelAccess, ChannelRecord, LimitReached, PageCursor
from openguild_proto.schemas.decode import decode_body, integer_parameter, parse_query
from openguild_proto.schemas.guilds import Channel, Name
from openguild_proto.sessions.tokens import Claims


def find_channel(channel_id: str, user_id: str, permission: Permission) -> Operation[ChannelAccess]:
    """What the user may be in the channel. Raises Refusal 404 or 403."""
    access = yield from FindChannelAccess(channel_id=channel_id, user_id=user_id)
    require_channel(access, permission)
    if access is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return access


def channel_access(
    ctx: Context, request: Request, channel_id: str, permission: Permission
) -> Operation[tuple[Claims, ChannelAccess]]:
    """Authenticate and decide. Raises Refusal 401, 404 or 403."""
    claims = yield from authenticate(ctx, request)
    access = yield from find_channel(channel_id, claims.user_id, permission)
    return claims, access


def check_epoch(query: Mapping[str, str], since: int | None, channel: ChannelRecord) -> None:
    """`epoch` says which log `since` counts in; without it nothing is known. Raises Refusal 400 where that is another one."""
    epoch = integer_parameter(query, "epoch")
    if epoch is None:
        return
    if epoch < 1:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("epoch", "must be positive"),))
    if since is None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("epoch", "says nothing without since"),))
    if epoch != channel.epoch:
        raise Refusal(ErrorCode.INVALID_SINCE, details=(FieldProblem("epoch", f"the log's epoch is {channel.epoch}"),))


def epoch_header(channel: ChannelRecord) -> Headers:
    """Which log a page or a stream is of."""
    return ((EPOCH_HEADER, str(channel.epoch)),)


def list_channels(ctx: Context, request: Request, guild_id: str) -> Operation[Response]:
    """GET /guilds/{guild_id}/channels: reads, and writes nothing (PROTOCOL 3.5.5)."""
    claims, _, _ = yield from guild_access(ctx, request, guild_id, Permission.READ)
    page = parse_page(request)

    def find(channel_id: str) -> Operation[PageCursor | None]:
        access = yield from FindChannelAccess(channel_id=channel_id, user_id=claims.user_id)
        return _cursor_of(access.channel) if access is not None and access.channel.guild_id == guild_id else None

    after = yield from start_of(page, find)
    channels = yield from ListChannels(guild_id=guild_id, limit=page.limit + 1, after=after)
    return page_response(page, channels, Channel.of, _cursor_of)


def _cursor_of(channel: ChannelRecord) -> PageCursor:
    return PageCursor(channel.created_at_ms, channel.channel_id)


def create_channel(ctx: Context, request: Request, guild_id: str) -> Operation[Response]:
    """POST /guilds/{guild_id}/channels -> 200; the guild's members are notified, nobody else (PROTOCOL 5.7.1)."""
    claims, _, _ = yield from guild_access(ctx, request, guild_id, Permission.CREATE_CHANNELS)
    parse_query(request)
    name = check_name(decode_body(request, Name).name, "channel_name")
    channel = yield from InsertChannel(
        author=claims.author,
        channel_id=new_id(ctx),
        guild_id=guild_id,
        name=name,
        now_ms=ctx.wall_ms,
        limit=ctx.service.settings.max_channels_per_guild,
    )
    if isinstance(channel, LimitReached):
        raise Refusal(ErrorCode.LIMIT_REACHED, f"a guild has at most {channel.limit} channels")
    return Response.json(Channel.of(channel))


def show_channel(ctx: Context, request: Request, channel_id: str) -> Operation[Response]:
    """GET /channels/{channel_id}"""
    _, access = yield from channel_access(ctx, request, channel_id, Permission.READ)
    parse_query(request)
    return Response.json(Channel.of(access.channel))


def rename_channel(ctx: Context, request: Request, channel_id: str) -> Operation[Response]:
    """PATCH /channels/{channel_id}"""
    claims, _ = yield from channel_access(ctx, request, channel_id, Permission.RENAME)
    parse_query(request)
    name = check_name(decode_body(request, Name).name, "channel_name")
    channel = yield from RenameChannel(author=claims.author, channel_id=channel_id, name=name)
    return Response.json(Channel.of(channel))


def delete_channel(ctx: Context, request: Request, channel_id: str) -> Operation[Response]:
    """DELETE /channels/{channel_id} -> 204: its streams close with 4404."""
    claims, _ = yield from channel_access(ctx, request, channel_id, Permission.DELETE)
    parse_query(request)
    yield from DeleteChannel(author=claims.author, channel_id=channel_id)
    return Response.empty()

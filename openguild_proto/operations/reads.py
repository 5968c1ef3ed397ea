"""Read positions and unread counts (PROTOCOL 7.7)."""

from __future__ import annotations

from openguild_proto.effects import AnnounceRead, FindChannelAccess, ListUnread, MarkRead, Operation
from openguild_proto.http.message import Request, Response
from openguild_proto.limits import MAX_SEQUENCE
from openguild_proto.operations.auth import authenticate
from openguild_proto.operations.channels import channel_access
from openguild_proto.operations.context import Context
from openguild_proto.operations.paging import page_response, parse_page, start_of
from openguild_proto.policy.permissions import Permission
from openguild_proto.records import PageCursor
from openguild_proto.schemas.decode import decode_body, parse_query
from openguild_proto.schemas.messages import MarkReadBody, ReadPosition


def mark_read(ctx: Context, request: Request, channel_id: str) -> Operation[Response]:
    """POST /channels/{channel_id}/read `{sequence?}`: answers what is stored and tells the other devices (PROTOCOL 7.7.2)."""
    claims, _ = yield from channel_access(ctx, request, channel_id, Permission.READ)
    parse_query(request)
    wanted = decode_body(request, MarkReadBody, required=False).sequence
    sequence = min(max(wanted, 0), MAX_SEQUENCE) if wanted is not None else None  # JSON's numbers have no end
    state = yield from MarkRead(author=claims.author, channel_id=channel_id, sequence=sequence, now_ms=ctx.wall_ms)
    yield from AnnounceRead(user_id=claims.user_id, state=state)
    return Response.json(ReadPosition.of(state))


def list_unread(ctx: Context, request: Request) -> Operation[Response]:
    """GET /channels/unread: one line per channel the caller may read, in pages: they may be in any number of guilds."""
    claims = yield from authenticate(ctx, request)
    page = parse_page(request)

    def find(channel_id: str) -> Operation[PageCursor | None]:
        access = yield from FindChannelAccess(channel_id=channel_id, user_id=claims.user_id)
        if access is None or (access.guild_role is None and access.channel_role is None):
            return None  # a server role lets him read it, and does not put it into the list
        return PageCursor(access.channel.created_at_ms, channel_id)

    after = yield from start_of(page, find)
    states = yield from ListUnread(user_id=claims.user_id, limit=page.limit + 1, after=after)
    return page_response(page, states, ReadPosition.of, lambda state: PageCursor(state.created_at_ms, state.channel_id))

"""Read positions and unread counts (PROTOCOL 7.7)."""

from __future__ import annotations

from openguild_proto.effects.base import Operation
from openguild_proto.effects.channels import FindChannelAccess, ListUnread, MarkRead
from openguild_proto.effects.process import Announce
from openguild_proto.hints import ReadHint
from openguild_proto.http.message import Response
from openguild_proto.limits import MAX_SEQUENCE
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Limit
from openguild_proto.operations.paging import NEXT_AFTER, PAGE, asked_page, page_response, start_of
from openguild_proto.operations.route import in_channel, route
from openguild_proto.policy.permissions import Permission
from openguild_proto.records import ChannelAccess, PageCursor
from openguild_proto.schemas.messages import MarkReadBody, ReadPosition


@route(
    "POST", "/channels/{channel_id}/read", "Move the read position", {200: ReadPosition},
    rights=in_channel(Permission.READ), body=MarkReadBody, body_required=False, at_owner=False, for_remote=False,
    limits=(Limit.READS,),
)  # fmt: skip
def mark_read(call: Call[MarkReadBody, ChannelAccess], channel_id: str) -> Operation[Response]:
    """Raise the read position, and notify the caller's other devices (PROTOCOL 7.7.2)."""
    wanted, claims = call.body.sequence, call.claims
    sequence = min(max(wanted, 0), MAX_SEQUENCE) if wanted is not None else None  # JSON numbers are unbounded
    state = yield from MarkRead(author=claims.author, channel_id=channel_id, sequence=sequence, now_ms=call.ctx.wall_ms)
    yield from Announce(ReadHint(user_id=claims.user_id, state=state))
    return Response.json(ReadPosition.of(state))


@route(
    "GET",
    "/channels/unread",
    "List unread counts",
    {200: list[ReadPosition]},
    query=PAGE,
    response_headers=(NEXT_AFTER,),
)
def list_unread(call: Call[None, None]) -> Operation[Response]:
    """List the unread counts of the caller's channels."""
    page, user_id = asked_page(call.query), call.claims.user_id

    def find(channel_id: str) -> Operation[PageCursor | None]:
        access = yield from FindChannelAccess(channel_id=channel_id, user_id=user_id)
        if access is None or (access.guild_role is None and access.channel_role is None):
            return None  # readable by a server role, but not in the list
        return PageCursor(access.channel.created_at_ms, channel_id)

    after = yield from start_of(page, find)
    states = yield from ListUnread(user_id=user_id, limit=page.limit + 1, after=after)
    return page_response(page, states, ReadPosition.of, lambda state: PageCursor(state.created_at_ms, state.channel_id))

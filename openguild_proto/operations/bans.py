"""Bans of a guild: ban, list, unban (PROTOCOL 5.5)."""

from __future__ import annotations

from openguild_proto.effects.bans import BanUser, FindBan, ListBans, UnbanUser
from openguild_proto.effects.base import Operation
from openguild_proto.effects.guilds import FindMember
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.http.message import Response
from openguild_proto.mirror_records import GuildBan
from openguild_proto.operations.call import Call
from openguild_proto.operations.epochs import LOG_PLACE, place_headers
from openguild_proto.operations.paging import NEXT_AFTER, PAGE, asked_page, page_response, start_of
from openguild_proto.operations.parameters import REASON
from openguild_proto.operations.route import in_guild, route
from openguild_proto.policy.permissions import Permission, require_ban
from openguild_proto.records import GuildAccess, LimitReached, PageCursor
from openguild_proto.schemas.guilds import Ban


@route(
    "GET", "/guilds/{guild_id}/bans", "List bans", {200: list[Ban]},
    rights=in_guild(Permission.MANAGE_MEMBERS), query=PAGE, response_headers=(NEXT_AFTER, *LOG_PLACE),
)  # fmt: skip
def list_bans(call: Call[None, GuildAccess], guild_id: str) -> Operation[Response]:
    """List the users who may not join a guild, by the time of the ban."""
    page = asked_page(call.query)

    def find(user_id: str) -> Operation[PageCursor | None]:
        ban = yield from FindBan(guild_id=guild_id, user_id=user_id, reader_id=call.claims.user_id)
        return _cursor_of(ban) if ban is not None else None

    after = yield from start_of(page, find)
    bans = yield from ListBans(guild_id=guild_id, limit=page.limit + 1, after=after, reader_id=call.claims.user_id)
    return page_response(
        page, bans, lambda ban: Ban.of(guild_id, ban), _cursor_of, headers=place_headers(call.access.place)
    )


def _cursor_of(ban: GuildBan) -> PageCursor:
    return PageCursor(ban.banned_at_ms, ban.user_id)


@route(
    "PUT", "/guilds/{guild_id}/bans/{user_id}", "Ban a user", {200: Ban},
    rights=in_guild(Permission.MANAGE_MEMBERS), query=(REASON,), errors=(ErrorCode.LIMIT_REACHED,),
)  # fmt: skip
def ban_user(call: Call[None, GuildAccess], guild_id: str, user_id: str) -> Operation[Response]:
    """Ban a user, and remove them if they are a member of a lower rank. An existing ban stays as it is."""
    member = yield from FindMember(guild_id=guild_id, user_id=user_id)
    held = member.role if member is not None else None
    require_ban(call.role, held, own=user_id == call.claims.user_id)
    ban = yield from BanUser(
        author=call.claims.author,
        guild_id=guild_id,
        user_id=user_id,
        now_ms=call.ctx.wall_ms,
        reason=call.query.get("reason"),
        limit=call.ctx.service.settings.guilds.max_bans_per_guild,
    )
    if isinstance(ban, LimitReached):
        raise Refusal(ErrorCode.LIMIT_REACHED, f"a guild has at most {ban.limit} bans; remove some")
    return Response.json(Ban.of(guild_id, ban))


@route(
    "DELETE", "/guilds/{guild_id}/bans/{user_id}", "Remove a ban", {204: None},
    rights=in_guild(Permission.MANAGE_MEMBERS), query=(REASON,),
)  # fmt: skip
def unban_user(call: Call[None, GuildAccess], guild_id: str, user_id: str) -> Operation[Response]:
    """End a ban of any moderator: the user may join again."""
    unbanned = yield from UnbanUser(
        author=call.claims.author,
        guild_id=guild_id,
        user_id=user_id,
        now_ms=call.ctx.wall_ms,
        reason=call.query.get("reason"),
    )
    if not unbanned:
        raise Refusal(ErrorCode.NOT_FOUND, "this user is not banned here")
    return Response.empty()

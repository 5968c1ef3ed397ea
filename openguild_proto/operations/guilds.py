"""Guilds: list, create, show, rename, delete (PROTOCOL 5.4)."""

from __future__ import annotations

from openguild_proto.effects.accounts import DescribeUser
from openguild_proto.effects.base import Operation
from openguild_proto.effects.guilds import DeleteGuild, FindGuildAccess, InsertGuild, ListGuilds, RenameGuild
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.http.message import Response
from openguild_proto.operations.call import Call
from openguild_proto.operations.epochs import LOG_PLACE, place_headers
from openguild_proto.operations.idempotency import CREATION_KEY, asked_once
from openguild_proto.operations.ids import new_id
from openguild_proto.operations.paging import NEXT_AFTER, PAGE, asked_page, page_response, start_of
from openguild_proto.operations.parameters import REASON, switch
from openguild_proto.operations.route import in_guild, route
from openguild_proto.operations.servers import is_silent
from openguild_proto.policy.names import check_name
from openguild_proto.policy.permissions import Permission, sees_all
from openguild_proto.records import GuildAccess, GuildRecord, LimitReached, PageCursor
from openguild_proto.schemas.guilds import Guild, Name

ALL = switch("all", "true: list all guilds; for server moderators and above, otherwise 403")


@route(
    "GET", "/guilds", "List guilds", {200: list[Guild]},
    query=(ALL, *PAGE), response_headers=(NEXT_AFTER,), errors=(ErrorCode.FORBIDDEN,),
)  # fmt: skip
def list_guilds(call: Call[None, None]) -> Operation[Response]:
    """List the caller's guilds; with `?all=true` every guild, for server moderators and above."""
    user_id, page = call.claims.user_id, asked_page(call.query)
    everything = call.query.get("all", False)
    if everything:
        profile = yield from DescribeUser(user_id=user_id)
        if profile is None or not sees_all(profile.server_roles):
            raise Refusal(ErrorCode.FORBIDDEN)

    def find(guild_id: str) -> Operation[PageCursor | None]:
        access = yield from FindGuildAccess(guild_id=guild_id, user_id=user_id)
        return _cursor_of(access.guild) if access is not None and (everything or access.role is not None) else None

    after = yield from start_of(page, find)
    guilds = yield from ListGuilds(user_id=None if everything else user_id, limit=page.limit + 1, after=after)
    silent: set[str] = set()
    for origin in {guild.origin for guild in guilds if guild.origin is not None}:
        if (yield from is_silent(call.ctx, origin)):
            silent.add(origin)
    return page_response(page, guilds, lambda guild: Guild.of(guild, offline=guild.origin in silent), _cursor_of)


def _cursor_of(guild: GuildRecord) -> PageCursor:
    return PageCursor(guild.created_at_ms, guild.guild_id)


@route(
    "POST", "/guilds", "Create a guild", {200: Guild}, body=Name,
    errors=(ErrorCode.LIMIT_REACHED, ErrorCode.NONCE_REUSED), request_headers=(CREATION_KEY,),
)  # fmt: skip
def create_guild(call: Call[Name, None]) -> Operation[Response]:
    """Create a guild, with the caller as its owner (PROTOCOL 5.4.1)."""
    name, ctx = check_name(call.body.name, "guild_name"), call.ctx
    guild = yield from InsertGuild(
        author=call.claims.author,
        guild_id=new_id(ctx),
        name=name,
        now_ms=ctx.wall_ms,
        limit=ctx.service.settings.guilds.max_owned_per_user,
        once=asked_once(call.request, "guild", name),
    )
    if isinstance(guild, LimitReached):
        raise Refusal(ErrorCode.LIMIT_REACHED, f"you may own at most {guild.limit} guilds")
    return Response.json(Guild.of(guild))


@route(
    "GET",
    "/guilds/{guild_id}",
    "Show a guild",
    {200: Guild},
    rights=in_guild(Permission.READ),
    response_headers=LOG_PLACE,
)
def show_guild(call: Call[None, GuildAccess], guild_id: str) -> Operation[Response]:
    """Show a guild."""
    del guild_id
    guild = call.access.guild
    offline = guild.origin is not None and (yield from is_silent(call.ctx, guild.origin))
    return Response.json(Guild.of(guild, offline=offline), headers=place_headers(call.access.place))


@route(
    "PATCH", "/guilds/{guild_id}", "Rename a guild", {200: Guild},
    rights=in_guild(Permission.RENAME), body=Name, query=(REASON,),
)  # fmt: skip
def rename_guild(call: Call[Name, GuildAccess], guild_id: str) -> Operation[Response]:
    """Rename a guild."""
    name = check_name(call.body.name, "guild_name")
    guild = yield from RenameGuild(
        author=call.claims.author,
        guild_id=guild_id,
        name=name,
        now_ms=call.ctx.wall_ms,
        reason=call.query.get("reason"),
    )
    return Response.json(Guild.of(guild))


@route("DELETE", "/guilds/{guild_id}", "Delete a guild", {204: None}, rights=in_guild(Permission.DELETE))
def delete_guild(call: Call[None, GuildAccess], guild_id: str) -> Operation[Response]:
    """Delete a guild; the streams of its channels close with 4404."""
    yield from DeleteGuild(author=call.claims.author, guild_id=guild_id)
    return Response.empty()

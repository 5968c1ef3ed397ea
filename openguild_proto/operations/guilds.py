"""Guilds: list, create, show, rename, delete (PROTOCOL 5.4)."""

from __future__ import annotations

from openguild_proto.effects import (
    DeleteGuild,
    DescribeUser,
    FindGuildAccess,
    InsertGuild,
    ListGuilds,
    Operation,
    RenameGuild,
)
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.http.message import Request, Response
from openguild_proto.operations.auth import authenticate
from openguild_proto.operations.context import Context
from openguild_proto.operations.ids import new_id
from openguild_proto.operations.paging import page_response, parse_page, start_of
from openguild_proto.policy.names import check_name
from openguild_proto.policy.permissions import Permission, require_guild, sees_all
from openguild_proto.records import GuildAccess, GuildRecord, LimitReached, PageCursor
from openguild_proto.schemas.decode import decode_body, parse_query
from openguild_proto.schemas.guilds import Guild, Name
from openguild_proto.sessions.tokens import Claims


def guild_access(
    ctx: Context, request: Request, guild_id: str, permission: Permission
) -> Operation[tuple[Claims, GuildAccess, str]]:
    """Authenticate and decide: (claims, access, effective role). Raises Refusal 401, 404 or 403."""
    claims = yield from authenticate(ctx, request)
    access = yield from FindGuildAccess(guild_id=guild_id, user_id=claims.user_id)
    role = require_guild(access, permission)
    if access is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return claims, access, role


def list_guilds(ctx: Context, request: Request) -> Operation[Response]:
    """GET /guilds: the caller's; `?all=true` for server moderators and above: every guild."""
    claims = yield from authenticate(ctx, request)
    page = parse_page(request, "all")
    everything = page.query.get("all") == "true"
    if everything:
        profile = yield from DescribeUser(user_id=claims.user_id)
        if profile is None or not sees_all(profile.server_roles):
            raise Refusal(ErrorCode.FORBIDDEN)

    def find(guild_id: str) -> Operation[PageCursor | None]:
        access = yield from FindGuildAccess(guild_id=guild_id, user_id=claims.user_id)
        return _cursor_of(access.guild) if access is not None and (everything or access.role is not None) else None

    after = yield from start_of(page, find)
    guilds = yield from ListGuilds(user_id=None if everything else claims.user_id, limit=page.limit + 1, after=after)
    return page_response(page, guilds, Guild.of, _cursor_of)


def _cursor_of(guild: GuildRecord) -> PageCursor:
    return PageCursor(guild.created_at_ms, guild.guild_id)


def create_guild(ctx: Context, request: Request) -> Operation[Response]:
    """POST /guilds -> 200: the creator is its owner (PROTOCOL 5.4.1)."""
    claims = yield from authenticate(ctx, request)
    parse_query(request)
    name = check_name(decode_body(request, Name).name, "guild_name")
    guild = yield from InsertGuild(
        author=claims.author,
        guild_id=new_id(ctx),
        name=name,
        now_ms=ctx.wall_ms,
        limit=ctx.service.settings.max_guilds_owned,
    )
    if isinstance(guild, LimitReached):
        raise Refusal(ErrorCode.LIMIT_REACHED, f"you may own at most {guild.limit} guilds")
    return Response.json(Guild.of(guild))


def show_guild(ctx: Context, request: Request, guild_id: str) -> Operation[Response]:
    """GET /guilds/{guild_id}"""
    _, access, _ = yield from guild_access(ctx, request, guild_id, Permission.READ)
    parse_query(request)
    return Response.json(Guild.of(access.guild))


def rename_guild(ctx: Context, request: Request, guild_id: str) -> Operation[Response]:
    """PATCH /guilds/{guild_id}"""
    claims, _, _ = yield from guild_access(ctx, request, guild_id, Permission.RENAME)
    parse_query(request)
    name = check_name(decode_body(request, Name).name, "guild_name")
    guild = yield from RenameGuild(author=claims.author, guild_id=guild_id, name=name)
    return Response.json(Guild.of(guild))


def delete_guild(ctx: Context, request: Request, guild_id: str) -> Operation[Response]:
    """DELETE /guilds/{guild_id} -> 204: its channels' streams close with 4404."""
    claims, _, _ = yield from guild_access(ctx, request, guild_id, Permission.DELETE)
    parse_query(request)
    yield from DeleteGuild(author=claims.author, guild_id=guild_id)
    return Response.empty()

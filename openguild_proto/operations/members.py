"""Members of a guild: list, change roles, kick, leave (PROTOCOL 5.5)."""

from __future__ import annotations

from openguild_proto.effects import FindMember, ListMembers, Operation, RemoveMember, SetMemberRole
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Request, Response
from openguild_proto.operations.auth import authenticate
from openguild_proto.operations.context import Context
from openguild_proto.operations.guilds import guild_access
from openguild_proto.operations.paging import page_response, parse_page, start_of
from openguild_proto.policy.permissions import Permission, normalise_role, require_removal, require_role_change
from openguild_proto.records import MemberChange, MemberRecord, PageCursor
from openguild_proto.schemas.decode import decode_body, parse_query
from openguild_proto.schemas.guilds import Member, RoleBody

_FAILURES = {
    MemberChange.NOT_MEMBER: ErrorCode.NOT_FOUND,
    MemberChange.LAST_OWNER: ErrorCode.LAST_OWNER,
    MemberChange.LIMIT_REACHED: ErrorCode.LIMIT_REACHED,
}


def _require_done(change: MemberChange) -> None:
    if change is not MemberChange.DONE:
        raise Refusal(_FAILURES[change])


def _find_member(guild_id: str, user_id: str) -> Operation[MemberRecord]:
    member = yield from FindMember(guild_id=guild_id, user_id=user_id)
    if member is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return member


def list_members(ctx: Context, request: Request, guild_id: str) -> Operation[Response]:
    """GET /guilds/{guild_id}/members"""
    yield from guild_access(ctx, request, guild_id, Permission.READ)
    page = parse_page(request)

    def find(user_id: str) -> Operation[PageCursor | None]:
        member = yield from FindMember(guild_id=guild_id, user_id=user_id)
        return _cursor_of(member) if member is not None else None

    after = yield from start_of(page, find)
    members = yield from ListMembers(guild_id=guild_id, limit=page.limit + 1, after=after)
    return page_response(page, members, Member.of, _cursor_of)


def _cursor_of(member: MemberRecord) -> PageCursor:
    return PageCursor(member.joined_at_ms, member.user_id)


def set_role(ctx: Context, request: Request, guild_id: str, user_id: str) -> Operation[Response]:
    """PUT /guilds/{guild_id}/members/{user_id} `{role}`: `require_role_change` says who may."""
    claims, _, own_role = yield from guild_access(ctx, request, guild_id, Permission.MANAGE_MEMBERS)
    parse_query(request)
    role = normalise_role(decode_body(request, RoleBody).role)
    if role is None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("role", "is not a role"),))
    member = yield from _find_member(guild_id, user_id)
    require_role_change(own_role, member.role, role, own=user_id == claims.user_id)
    if member.role != role:
        limit = ctx.service.settings.max_guilds_owned
        change = SetMemberRole(author=claims.author, guild_id=guild_id, user_id=user_id, role=role, limit=limit)
        _require_done((yield from change))
    return Response.json(Member.of(MemberRecord(guild_id, user_id, member.username, role, member.joined_at_ms)))


def kick(ctx: Context, request: Request, guild_id: str, user_id: str) -> Operation[Response]:
    """DELETE /guilds/{guild_id}/members/{user_id} -> 204: below one's own rank only."""
    claims, _, own_role = yield from guild_access(ctx, request, guild_id, Permission.MANAGE_MEMBERS)
    parse_query(request)
    member = yield from _find_member(guild_id, user_id)
    if user_id != claims.user_id:
        require_removal(own_role, member.role)
    _require_done((yield from RemoveMember(author=claims.author, guild_id=guild_id, user_id=user_id)))
    return Response.empty()


def leave(ctx: Context, request: Request, guild_id: str) -> Operation[Response]:
    """DELETE /guilds/{guild_id}/members/@me -> 204. The last owner stays (409)."""
    claims = yield from authenticate(ctx, request)
    parse_query(request)
    _require_done((yield from RemoveMember(author=claims.author, guild_id=guild_id, user_id=claims.user_id)))
    return Response.empty()

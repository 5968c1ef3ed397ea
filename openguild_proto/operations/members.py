"""Members of a guild: list, change roles, kick, leave (PROTOCOL 5.5)."""

from __future__ import annotations

from msgspec.structs import replace

from openguild_proto.effects.base import Operation
from openguild_proto.effects.guilds import FindGuildAccess, FindMember, ListMembers, RemoveMember, SetMemberRole
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Response
from openguild_proto.operations.call import Call
from openguild_proto.operations.epochs import LOG_PLACE, place_headers
from openguild_proto.operations.paging import NEXT_AFTER, PAGE, asked_page, page_response, start_of
from openguild_proto.operations.parameters import REASON
from openguild_proto.operations.route import in_guild, route
from openguild_proto.operations.upkeep import leave_mirrored
from openguild_proto.policy.members import OWNER
from openguild_proto.policy.permissions import ROLES, Permission, normalise_role, require_removal, require_role_change
from openguild_proto.records import GuildAccess, MemberChange, MemberRecord, PageCursor
from openguild_proto.schemas.guilds import Member, RoleBody

_FAILURES = {
    MemberChange.NOT_MEMBER: ErrorCode.NOT_FOUND,
    MemberChange.LAST_OWNER: ErrorCode.LAST_OWNER,
    MemberChange.LIMIT_REACHED: ErrorCode.LIMIT_REACHED,
}


def require_done(change: MemberChange) -> None:
    """Raise Refusal if a change of a member was not made."""
    if change is not MemberChange.DONE:
        raise Refusal(_FAILURES[change])


def _find_member(guild_id: str, user_id: str) -> Operation[MemberRecord]:
    member = yield from FindMember(guild_id=guild_id, user_id=user_id)
    if member is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return member


@route(
    "GET", "/guilds/{guild_id}/members", "List members", {200: list[Member]},
    rights=in_guild(Permission.READ), query=PAGE, response_headers=(NEXT_AFTER, *LOG_PLACE),
)  # fmt: skip
def list_members(call: Call[None, GuildAccess], guild_id: str) -> Operation[Response]:
    """List the members of a guild, by join time."""
    page = asked_page(call.query)

    def find(user_id: str) -> Operation[PageCursor | None]:
        member = yield from FindMember(guild_id=guild_id, user_id=user_id, reader_id=call.claims.user_id)
        return _cursor_of(member) if member is not None else None

    after = yield from start_of(page, find)
    members = yield from ListMembers(
        guild_id=guild_id, limit=page.limit + 1, after=after, reader_id=call.claims.user_id
    )
    return page_response(page, members, Member.of, _cursor_of, headers=place_headers(call.access.place))


def _cursor_of(member: MemberRecord) -> PageCursor:
    return PageCursor(member.joined_at_ms, member.user_id)


@route(
    "PUT", "/guilds/{guild_id}/members/{user_id}", "Change a member's role", {200: Member},
    rights=in_guild(Permission.MANAGE_MEMBERS), body=RoleBody, query=(REASON,),
    errors=(ErrorCode.LAST_OWNER, ErrorCode.LIMIT_REACHED),
)  # fmt: skip
def set_role(call: Call[RoleBody, GuildAccess], guild_id: str, user_id: str) -> Operation[Response]:
    """Change a member's role (`require_role_change`)."""
    role = normalise_role(call.body.role)
    if role is None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("role", f"must be one of: {', '.join(ROLES)}"),))
    member = yield from _find_member(guild_id, user_id)
    require_role_change(call.role, member.role, role, own=user_id == call.claims.user_id)
    if member.role != role:
        change = SetMemberRole(
            author=call.claims.author,
            guild_id=guild_id,
            user_id=user_id,
            role=role,
            now_ms=call.ctx.wall_ms,
            reason=call.query.get("reason"),
            limit=call.ctx.service.settings.guilds.max_owned_per_user,
        )
        require_done((yield from change))
    until_ms = member.timed_out_until_ms if role != OWNER else None
    return Response.json(Member.of(replace(member, role=role, timed_out_until_ms=until_ms)))


@route(
    "DELETE", "/guilds/{guild_id}/members/@me", "Leave a guild", {204: None}, for_remote=True,
    errors=(ErrorCode.GUILD_OFFLINE, ErrorCode.NOT_FOUND, ErrorCode.LAST_OWNER),
)  # fmt: skip
def leave(call: Call[None, None], guild_id: str) -> Operation[Response]:
    """Leave a guild; 409 for the last owner."""
    author, now_ms = call.claims.author, call.ctx.wall_ms
    access = yield from FindGuildAccess(guild_id=guild_id, user_id=author.user_id)
    if access is not None and access.guild.origin is not None:
        return (yield from leave_mirrored(call, access.guild.origin, guild_id))
    require_done((yield from RemoveMember(author=author, guild_id=guild_id, user_id=author.user_id, now_ms=now_ms)))
    return Response.empty()


@route(
    "DELETE", "/guilds/{guild_id}/members/{user_id}", "Remove a member", {204: None},
    rights=in_guild(Permission.MANAGE_MEMBERS), query=(REASON,), errors=(ErrorCode.LAST_OWNER,),
)  # fmt: skip
def kick(call: Call[None, GuildAccess], guild_id: str, user_id: str) -> Operation[Response]:
    """Remove a member of a lower rank."""
    member = yield from _find_member(guild_id, user_id)
    if user_id != call.claims.user_id:
        require_removal(call.role, member.role)
    removal = RemoveMember(
        author=call.claims.author,
        guild_id=guild_id,
        user_id=user_id,
        now_ms=call.ctx.wall_ms,
        reason=call.query.get("reason"),
    )
    require_done((yield from removal))
    return Response.empty()

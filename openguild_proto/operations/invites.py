"""Invites: the only way into a guild (PROTOCOL 5.6)."""

from __future__ import annotations

from openguild_proto.effects.base import Operation
from openguild_proto.effects.guilds import (
    AcceptInvite,
    DeleteInvite,
    FindGuildAccess,
    FindInvite,
    InsertInvite,
    ListInvites,
)
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Response
from openguild_proto.limits import MAX_COUNTED_MEMBERS, MAX_INVITE_TTL_SECS, MAX_INVITE_USES
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Limit
from openguild_proto.operations.epochs import LOG_PLACE, place_headers
from openguild_proto.operations.idempotency import CREATION_KEY, asked_once
from openguild_proto.operations.ids import new_code
from openguild_proto.operations.owners import pass_to_owner
from openguild_proto.operations.paging import NEXT_AFTER, asked_page, page_response, paged_by, start_of
from openguild_proto.operations.parameters import REASON
from openguild_proto.operations.remote_joining import (
    join_remote,
    require_dealings_by_invite,
    show_remote_invite,
    split_invite,
)
from openguild_proto.operations.route import Rights, in_guild, route
from openguild_proto.operations.servers import require_unrestricted
from openguild_proto.policy.invites import is_valid_invite, parse_code
from openguild_proto.policy.permissions import Permission, needed_to_delete, require_guild
from openguild_proto.records import GuildAccess, InviteRecord, LimitReached, PageCursor
from openguild_proto.schemas.guilds import Invite, InvitePreview, Member, NewInvite

JOIN_ROLE = "member"


@route(
    "POST", "/guilds/{guild_id}/invites", "Create an invite", {201: Invite},
    rights=in_guild(Permission.CREATE_INVITES), body=NewInvite, body_required=False,
    errors=(ErrorCode.LIMIT_REACHED, ErrorCode.NONCE_REUSED), request_headers=(CREATION_KEY,),
)  # fmt: skip
def create_invite(call: Call[NewInvite, GuildAccess], guild_id: str) -> Operation[Response]:
    """Create an invite; without bounds it admits any number of users until it is deleted."""
    ctx, body = call.ctx, call.body
    problems = tuple(
        FieldProblem(field, f"must be between 1 and {most}")
        for field, value, most in (
            ("max_uses", body.max_uses, MAX_INVITE_USES),
            ("expires_in_secs", body.expires_in_secs, MAX_INVITE_TTL_SECS),
        )
        if value is not None and not 1 <= value <= most
    )
    if problems:
        raise Refusal(ErrorCode.VALIDATION, details=problems)
    invite = yield from InsertInvite(
        author=call.claims.author,
        code=new_code(ctx),
        guild_id=guild_id,
        max_uses=body.max_uses,
        expires_at_ms=ctx.wall_ms + body.expires_in_secs * 1000 if body.expires_in_secs is not None else None,
        now_ms=ctx.wall_ms,
        limit=ctx.service.settings.guilds.max_invites_per_guild,
        once=asked_once(call.request, "invite", guild_id, body.max_uses, body.expires_in_secs),
    )
    if isinstance(invite, LimitReached):
        raise Refusal(ErrorCode.LIMIT_REACHED, f"a guild has at most {invite.limit} living invites; delete some")
    return Response.json(Invite.of(invite), status=201)


@route(
    "GET", "/guilds/{guild_id}/invites", "List invites", {200: list[Invite]}, at_owner=True,
    rights=in_guild(Permission.CREATE_INVITES), query=paged_by(parse_code, "[A-Za-z0-9_-]{1,64}"),
    response_headers=(NEXT_AFTER, *LOG_PLACE),
)  # fmt: skip
def list_invites(call: Call[None, GuildAccess], guild_id: str) -> Operation[Response]:
    """List the invites of a guild, including used-up and expired ones, until they are deleted."""
    page, reader_id = asked_page(call.query), call.claims.user_id

    def find(code: str) -> Operation[PageCursor | None]:
        invite = yield from FindInvite(code=code, reader_id=reader_id)
        return _cursor_of(invite) if invite is not None and invite.guild_id == guild_id else None

    after = yield from start_of(page, find)
    invites = yield from ListInvites(guild_id=guild_id, limit=page.limit + 1, after=after, reader_id=reader_id)
    return page_response(page, invites, Invite.of, _cursor_of, headers=place_headers(call.access.place))


def _cursor_of(invite: InviteRecord) -> PageCursor:
    return PageCursor(invite.created_at_ms, invite.code)


def _find(code: str, *, counted: int = 0) -> Operation[InviteRecord]:
    invite = yield from FindInvite(code=code, counted=counted)
    if invite is None:
        raise Refusal(ErrorCode.NOT_FOUND, "there is no such invite")
    return invite


@route(
    "GET", "/invites/{code}", "Preview an invite", {200: InvitePreview}, limits=(Limit.WRITES,),
    errors=(ErrorCode.NOT_FOUND, ErrorCode.INVITE_EXPIRED, ErrorCode.GUILD_OFFLINE),
)  # fmt: skip
def preview_invite(call: Call[None, None], code: str) -> Operation[Response]:
    """Show the guild of an invite; 410 if it is used up or expired. For another server: `code@server` (PROTOCOL 16.5.1)."""
    code, server = split_invite(call, code)
    if server is not None:
        remote = yield from show_remote_invite(call, code, server)
        return Response.json(InvitePreview.of_remote(f"{code}@{server}", server, remote))
    invite = yield from _find(code, counted=MAX_COUNTED_MEMBERS)
    if invite.origin is not None:  # its guild was handed over
        remote = yield from show_remote_invite(call, code, invite.origin)
        return Response.json(InvitePreview.of_remote(f"{code}@{invite.origin}", invite.origin, remote))
    if not is_valid_invite(invite, call.ctx.wall_ms):
        raise Refusal(ErrorCode.INVITE_EXPIRED)
    return Response.json(InvitePreview.of(invite))


@route(
    "POST", "/invites/{code}/accept", "Join with an invite", {200: Member},
    errors=(
        ErrorCode.NOT_FOUND, ErrorCode.INVITE_EXPIRED, ErrorCode.BANNED, ErrorCode.LIMIT_REACHED, ErrorCode.NONCE_REUSED,
        ErrorCode.GUILD_OFFLINE, ErrorCode.ID_TAKEN,
    ),
    request_headers=(CREATION_KEY,),
)  # fmt: skip
def accept_invite(call: Call[None, None], code: str) -> Operation[Response]:
    """Join the guild; idempotent for members. For another server: `code@server` (PROTOCOL 16.5.1)."""
    ctx = call.ctx
    code, server = split_invite(call, code)
    if server is not None:
        return Response.json(Member.of((yield from join_remote(call, code, server))))
    invite = yield from FindInvite(code=code)
    if invite is not None and invite.origin is not None:  # its guild was handed over
        return Response.json(Member.of((yield from join_remote(call, code, invite.origin))))
    member = yield from AcceptInvite(
        author=call.claims.author,
        code=code,
        role=JOIN_ROLE,
        now_ms=ctx.wall_ms,
        limit=ctx.service.settings.guilds.max_joined_per_user,
        once=asked_once(call.request, "member", code),
    )
    if isinstance(member, LimitReached):
        raise Refusal(ErrorCode.LIMIT_REACHED, f"you may be a member of at most {member.limit} guilds; leave one")
    if member is None:
        yield from _find(code)  # 404 for an unknown or deleted invite
        raise Refusal(ErrorCode.INVITE_EXPIRED)
    return Response.json(Member.of(member))


@route(
    "DELETE", "/invites/{code}", "Delete an invite", {204: None},
    rights=Rights(text="self or MANAGE_MEMBERS"), for_remote=True, query=(REASON,),
    errors=(ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN, ErrorCode.GUILD_OFFLINE),
)  # fmt: skip
def delete_invite(call: Call[None, None], code: str) -> Operation[Response]:
    """Delete an invite, by its creator or a member with MANAGE_MEMBERS."""
    code, server = split_invite(call, code)
    if server is not None:
        yield from require_dealings_by_invite(call, code, server)
        return (yield from pass_to_owner(call, server))
    invite = yield from FindInvite(code=code)
    if invite is None:  # as for who does not reach its guild (PROTOCOL 5.3.2)
        raise Refusal(ErrorCode.NOT_FOUND)
    if invite.origin is not None:  # its guild was handed over
        return (yield from pass_to_owner(call, invite.origin, invite.guild_id))
    access = yield from FindGuildAccess(guild_id=invite.guild_id, user_id=call.claims.user_id)
    require_guild(access, needed_to_delete(invite.created_by, call.claims.user_id))
    if call.home is not None:  # the path names no guild, so that dispatch could not look at it (PROTOCOL 16.4.9)
        require_unrestricted(call.ctx, call.home, invite.guild_id)
    reason = call.query.get("reason")
    yield from DeleteInvite(author=call.claims.author, code=code, now_ms=call.ctx.wall_ms, reason=reason)
    return Response.empty()

"""Invites: the only way into a guild (PROTOCOL 5.6)."""

from __future__ import annotations

import re

from openguild_proto.effects import (
    AcceptInvite,
    DeleteInvite,
    FindGuildAccess,
    FindInvite,
    InsertInvite,
    ListInvites,
    Operation,
)
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Request, Response
from openguild_proto.limits import MAX_INVITE_TTL_SECS, MAX_INVITE_USES
from openguild_proto.operations.auth import authenticate
from openguild_proto.operations.context import Context
from openguild_proto.operations.guilds import guild_access
from openguild_proto.operations.ids import new_code
from openguild_proto.operations.paging import page_response, parse_page, start_of
from openguild_proto.policy.permissions import Permission, needed_to_delete, require_guild
from openguild_proto.records import InviteRecord, LimitReached, PageCursor
from openguild_proto.schemas.decode import decode_body, parse_query
from openguild_proto.schemas.guilds import Invite, InvitePreview, Member, NewInvite

JOIN_ROLE = "member"

_CODE = re.compile(r"[A-Za-z0-9_-]{1,64}")  # ids.new_code


def create_invite(ctx: Context, request: Request, guild_id: str) -> Operation[Response]:
    """POST /guilds/{guild_id}/invites `{max_uses?, expires_in_secs?}` -> 201."""
    claims, _, _ = yield from guild_access(ctx, request, guild_id, Permission.CREATE_INVITES)
    parse_query(request)
    body = decode_body(request, NewInvite, required=False)
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
        author=claims.author,
        code=new_code(ctx),
        guild_id=guild_id,
        max_uses=body.max_uses,
        expires_at_ms=ctx.wall_ms + body.expires_in_secs * 1000 if body.expires_in_secs is not None else None,
        now_ms=ctx.wall_ms,
        limit=ctx.service.settings.max_invites_per_guild,
    )
    if isinstance(invite, LimitReached):
        raise Refusal(ErrorCode.LIMIT_REACHED, f"a guild has at most {invite.limit} living invites; delete some")
    return Response.json(Invite.of(invite), status=201)


def list_invites(ctx: Context, request: Request, guild_id: str) -> Operation[Response]:
    """GET /guilds/{guild_id}/invites: for who may create them; spent and expired ones too, until they are forgotten."""
    yield from guild_access(ctx, request, guild_id, Permission.CREATE_INVITES)
    page = parse_page(request, parse_key=_parse_code)

    def find(code: str) -> Operation[PageCursor | None]:
        invite = yield from FindInvite(code=code)
        return _cursor_of(invite) if invite is not None and invite.guild_id == guild_id else None

    after = yield from start_of(page, find)
    invites = yield from ListInvites(guild_id=guild_id, limit=page.limit + 1, after=after)
    return page_response(page, invites, Invite.of, _cursor_of)


def _parse_code(text: str) -> str | None:
    return text if _CODE.fullmatch(text) is not None else None


def _cursor_of(invite: InviteRecord) -> PageCursor:
    return PageCursor(invite.created_at_ms, invite.code)


def _find(code: str) -> Operation[InviteRecord]:
    invite = yield from FindInvite(code=code)
    if invite is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return invite


def _is_spent(invite: InviteRecord, wall_ms: int) -> bool:
    used_up = invite.max_uses is not None and invite.uses >= invite.max_uses
    return used_up or (invite.expires_at_ms is not None and invite.expires_at_ms <= wall_ms)


def preview_invite(ctx: Context, request: Request, code: str) -> Operation[Response]:
    """GET /invites/{code}: where it leads. 410 when it leads nowhere any more."""
    yield from authenticate(ctx, request)
    parse_query(request)
    invite = yield from _find(code)
    if _is_spent(invite, ctx.wall_ms):
        raise Refusal(ErrorCode.INVITE_EXPIRED)
    return Response.json(InvitePreview.of(invite))


def accept_invite(ctx: Context, request: Request, code: str) -> Operation[Response]:
    """POST /invites/{code}/accept -> 200 membership; idempotent for who is a member already."""
    claims = yield from authenticate(ctx, request)
    parse_query(request)
    member = yield from AcceptInvite(
        author=claims.author,
        code=code,
        role=JOIN_ROLE,
        now_ms=ctx.wall_ms,
        limit=ctx.service.settings.max_guilds_joined,
    )
    if isinstance(member, LimitReached):
        raise Refusal(ErrorCode.LIMIT_REACHED, f"you may be a member of at most {member.limit} guilds; leave one")
    if member is None:
        yield from _find(code)  # 404 for one that never was or is deleted
        raise Refusal(ErrorCode.INVITE_EXPIRED)
    return Response.json(Member.of(member))


def delete_invite(ctx: Context, request: Request, code: str) -> Operation[Response]:
    """DELETE /invites/{code} -> 204: by its maker, or who manages members."""
    claims = yield from authenticate(ctx, request)
    parse_query(request)
    invite = yield from _find(code)
    access = yield from FindGuildAccess(guild_id=invite.guild_id, user_id=claims.user_id)
    require_guild(access, needed_to_delete(invite.created_by, claims.user_id))
    yield from DeleteInvite(author=claims.author, code=code)
    return Response.empty()

"""Answers other servers about guilds of this one: invites, joins, snapshots, requests of their users (PROTOCOL 16.5, 16.7)."""

from __future__ import annotations

from typing import Any

from openguild_proto.effects.accounts import DescribeUser
from openguild_proto.effects.base import Operation
from openguild_proto.effects.federation import Standing
from openguild_proto.effects.guilds import FindInvite, FindMember
from openguild_proto.effects.mirrors import JoinFromServer, KnowRemoteUser, ReadSnapshot
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.federation.server_names import NameFault, parse_user_id
from openguild_proto.http.message import Request, Response
from openguild_proto.limits import MAX_COUNTED_MEMBERS, MAX_MIRRORED_MEMBERS, MAX_USER_REQUEST_BODY_BYTES
from openguild_proto.log.chains import with_chains
from openguild_proto.mirror_records import RemoteUser, Snapshot
from openguild_proto.operations.call import Call
from openguild_proto.operations.idempotency import KEY_HEADER
from openguild_proto.operations.invites import JOIN_ROLE
from openguild_proto.operations.owner_changes import moved
from openguild_proto.operations.route import RunAs, route
from openguild_proto.operations.servers import require_unrestricted, spend
from openguild_proto.policy.invites import is_valid_invite
from openguild_proto.policy.names import check_name
from openguild_proto.records import InviteRecord, LimitReached
from openguild_proto.schemas.between_servers import (
    JoinAnswer,
    JoinRequest,
    RemoteInvite,
    UserAnswer,
    UserRequest,
)
from openguild_proto.sessions.tokens import Claims


def checked_user(user: RemoteUser) -> RemoteUser:
    """Return the user, with names that may be shown here. Raises Refusal 400."""
    try:
        parse_user_id(user.user_id)
    except NameFault:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("user.user_id", "must be a UUID"),)) from None
    name = check_name(user.username, "user.username")
    shown = check_name(user.display_name, "user.display_name") if user.display_name is not None else None
    return RemoteUser(user.user_id, name, shown)


def _invite(call: Call[Any, Any], code: str, user_id: str | None = None, *, counted: int) -> Operation[InviteRecord]:
    """Return an invite to a guild of this server, with a count of up to `counted` members. It is valid, or the user is a member
    already. Raises Refusal.
    """
    require_unrestricted(call.ctx, call.server)
    spend(call.ctx, call.ctx.service.peer_invites, call.server.server)
    invite = yield from FindInvite(code=code, counted=counted)
    if invite is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    if invite.origin is not None:
        raise moved(invite.guild_id, invite.origin)
    is_valid = is_valid_invite(invite, call.ctx.wall_ms)
    if not is_valid and (user_id is None or (yield from FindMember(invite.guild_id, user_id)) is None):
        raise Refusal(ErrorCode.INVITE_EXPIRED)
    require_unrestricted(call.ctx, call.server, invite.guild_id)
    return invite


@route(
    "GET", "/federation/v1/invites/{code}", "Show the guild of an invite, for another server", {200: RemoteInvite},
    auth="server", client=False,
    errors=(ErrorCode.NOT_FOUND, ErrorCode.INVITE_EXPIRED, ErrorCode.SERVER_QUARANTINED, ErrorCode.GUILD_MOVED),
)  # fmt: skip
def show_invite(call: Call[None, None], code: str) -> Operation[Response]:
    """Show a valid invite."""
    invite = yield from _invite(call, code, counted=MAX_COUNTED_MEMBERS)
    return Response.json(
        RemoteInvite(
            invite.guild_id,
            invite.guild_name,
            invite.member_count,
            invite.created_by,
            invite.uses,
            invite.max_uses,
            invite.expires_at_ms,
        )
    )


@route(
    "POST", "/federation/v1/invites/{code}/join", "Let a user of another server join with an invite", {200: JoinAnswer},
    auth="server", client=False, body=JoinRequest,
    errors=(
        ErrorCode.NOT_FOUND, ErrorCode.INVITE_EXPIRED, ErrorCode.BANNED, ErrorCode.LIMIT_REACHED, ErrorCode.ID_TAKEN,
        ErrorCode.SERVER_QUARANTINED, ErrorCode.GUILD_MOVED, ErrorCode.GUILD_OFFLINE,
    ),
)  # fmt: skip
def join(call: Call[JoinRequest, None], code: str) -> Operation[Response]:
    """Let a user of the server join; idempotent for members. The guild's logs are delivered from the answer on."""
    ctx, server = call.ctx, call.server.server
    user = checked_user(call.body.user)
    invite = yield from _invite(call, code, user.user_id, counted=MAX_MIRRORED_MEMBERS)
    if invite.member_count >= MAX_MIRRORED_MEMBERS:
        raise Refusal(ErrorCode.LIMIT_REACHED, "this guild is too large to be mirrored")
    spend(ctx, ctx.service.peer_joins, server)
    if not call.body.has_mirror:
        _spend_snapshot(call, invite.guild_id)
    joined = yield from JoinFromServer(
        peer=server,
        user=user,
        code=code,
        role=JOIN_ROLE,
        now_ms=ctx.wall_ms,
        limit=ctx.service.settings.guilds.max_joined_per_user,
        wants_snapshot=not call.body.has_mirror,
    )
    if isinstance(joined, LimitReached):
        raise Refusal(ErrorCode.LIMIT_REACHED, f"they may be a member of at most {joined.limit} guilds here")
    if joined is None:
        raise Refusal(ErrorCode.INVITE_EXPIRED)
    place, found = joined.place, joined.snapshot
    snapshot = (yield from with_chains(found)) if found is not None else None
    answer = JoinAnswer(joined.guild_id, joined.member, place.epoch, place.sequence, snapshot)
    return Response.json(answer)


def _spend_snapshot(call: Call[Any, Any], guild_id: str) -> None:
    """Count a snapshot of the guild for the server: one of 50,000 members takes seconds. Raises Refusal 429."""
    spend(call.ctx, call.ctx.service.peer_snapshots, f"{call.server.server} {guild_id}")


@route(
    "GET", "/federation/v1/guilds/{guild_id}/snapshot", "Read a guild's current state, for a mirror that starts again",
    {200: Snapshot}, auth="server", client=False, errors=(ErrorCode.NOT_FOUND,),
)  # fmt: skip
def snapshot(call: Call[None, None], guild_id: str) -> Operation[Response]:
    """Show a guild that the calling server mirrors; its logs are delivered from this state on."""
    require_unrestricted(call.ctx, call.server, guild_id, reads=True)
    _spend_snapshot(call, guild_id)
    found = yield from ReadSnapshot(peer=call.server.server, guild_id=guild_id)
    if found is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return Response.json((yield from with_chains(found)))


@route(
    "POST", "/federation/v1/requests", "Perform a request of a user of another server", {200: UserAnswer},
    auth="server", client=False, body=UserRequest, max_body_bytes=MAX_USER_REQUEST_BODY_BYTES,
    errors=(ErrorCode.NOT_FOUND, ErrorCode.ID_TAKEN, ErrorCode.SERVER_QUARANTINED),
)  # fmt: skip
def user_request(call: Call[UserRequest, None]) -> Operation[RunAs]:
    """Run a client route for a user of the calling server, with the user's permissions here."""
    ctx, body, server = call.ctx, call.body, call.server.server
    require_unrestricted(ctx, call.server, reads=body.method == "GET")
    spend(ctx, ctx.service.peer_proposals, server)
    user = checked_user(body.user)
    if call.server.verdict.standing is Standing.QUARANTINE:  # names are new things
        yield from _require_known(user, server)
    else:
        yield from KnowRemoteUser(peer=server, user=user, now_ms=ctx.wall_ms)
    path, _, query = body.target.partition("?")
    headers = [("content-type", "application/json")] if body.body is not None else []
    if body.key is not None:
        headers.append((KEY_HEADER, body.key))
    request = Request(
        method=body.method,
        path=path,
        query=query,
        headers=tuple(headers),
        body=body.body.encode() if body.body is not None else b"",
        request_id=call.request.request_id,
        client_address=server,
    )
    return RunAs(request, Claims("", user.user_id, user.username, 0, 0), call.server)


def _require_known(user: RemoteUser, server: str) -> Operation[None]:
    """Raise Refusal, as KnowRemoteUser does, unless this is a user of the server."""
    known = yield from DescribeUser(user_id=user.user_id, limit=0)
    if known is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    if known.user.origin != server:
        raise Refusal(ErrorCode.ID_TAKEN)

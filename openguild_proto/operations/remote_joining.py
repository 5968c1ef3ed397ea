"""Joins guilds of other servers by invites of the form `code@server` (PROTOCOL 16.5)."""

from __future__ import annotations

from typing import Any

from openguild_proto.effects.accounts import DescribeUser
from openguild_proto.effects.base import Operation
from openguild_proto.effects.mirrors import (
    DropMirror,
    EndPendingLeave,
    FindMirrorHead,
    NotePendingLeave,
    PendingLeave,
    StoreMirror,
)
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.federation.server_names import NameFault, parse_server_name
from openguild_proto.limits import MAX_SHORT_ANSWER_BYTES, REMOTE_JOIN_WRITES, REMOTE_PREVIEW_WRITES
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Limit
from openguild_proto.operations.owner_changes import follow_owner
from openguild_proto.operations.owner_claims import invite_problem, is_place, member_problem, snapshot_problem
from openguild_proto.operations.owners import ask_owner, is_mirrored, offline, remote_user
from openguild_proto.operations.servers import known_peer, require_dealings
from openguild_proto.operations.upkeep import clear_mirror, end_membership, note_mistaken
from openguild_proto.policy.invites import parse_code
from openguild_proto.records import LogPosition, MemberRecord
from openguild_proto.schemas.between_servers import JoinAnswer, JoinRequest, RemoteInvite, check_snapshot

UNDONE_MS = 60_000  # PROTOCOL 16.5.12: then a join with a lost response is undone
MAX_ASKED = 4  # ours: times that the owner is asked to admit a user, if others join and leave meanwhile
MAX_MOVES = 3  # ours: moves of a guild since the invite was created


def split_invite(call: Call[Any, Any], code: str) -> tuple[str, str | None]:
    """Return the code and the server of an invite; None: this server. Raises Refusal 400."""
    code, at, server = code.partition("@")
    if not at or server == call.ctx.service.settings.server_name:
        return code, None
    if parse_code(code) is None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("code", "must be the code of an invite"),))
    try:
        return code, parse_server_name(server)
    except NameFault as fault:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("code", str(fault)),)) from None


def show_remote_invite(call: Call[Any, Any], code: str, server: str) -> Operation[RemoteInvite]:
    """Return the guild of an invite of another server. Raises Refusal."""
    _charge(call, REMOTE_PREVIEW_WRITES)
    invite, server = yield from _find_invite(code, server)
    if invite is None:
        raise Refusal(ErrorCode.INVITE_EXPIRED)
    yield from require_dealings(call.ctx, server, invite.guild_id)
    return invite


def _find_invite(code: str, server: str) -> Operation[tuple[RemoteInvite | None, str]]:
    """Return an invite, and the server that owns its guild now, according to the server of the invite. None: it has expired."""
    for _ in range(MAX_MOVES):
        try:
            target = f"/federation/v1/invites/{code}"
            found = yield from ask_owner(server, "GET", target, None, RemoteInvite, MAX_SHORT_ANSWER_BYTES)
            if invite_problem(found) is not None:
                raise offline()
            return found, server
        except Refusal as refusal:
            if refusal.code is ErrorCode.INVITE_EXPIRED:
                return None, server
            owner = next((each.message for each in refusal.details if each.field == "owner"), None)
            if refusal.code is not ErrorCode.GUILD_MOVED or owner is None:
                raise
            server = _owner_named(owner)
    raise offline()


def require_dealings_by_invite(call: Call[Any, Any], code: str, server: str) -> Operation[None]:
    """Check that this server federates with the owner of an invite's guild, in that guild. The owner is asked for the guild only
    if the operator has decided about some of its guilds. Raises Refusal.
    """
    peer = yield from known_peer(call.ctx, server)
    if peer is None or all(ruling.guild_id is None for ruling in peer.rulings):
        return
    invite, owner = yield from _find_invite(code, server)
    if invite is not None:  # an expired one has no guild to check
        yield from require_dealings(call.ctx, owner, invite.guild_id)


def _owner_named(text: str) -> str:
    try:
        return parse_server_name(text)
    except NameFault:
        raise offline() from None


def join_remote(call: Call[Any, Any], code: str, server: str) -> Operation[MemberRecord]:
    """Make the caller a member of a guild of another server, and mirror the guild here. Raises Refusal."""
    user = yield from remote_user(call)
    yield from _require_room(call)
    _charge(call, REMOTE_JOIN_WRITES)
    asked = server
    invite, server = yield from _find_invite(code, server)
    has_mirror = is_new = False
    due_ms = call.ctx.wall_ms + UNDONE_MS
    if invite is not None:  # an expired one admits nobody, but tells members that they are
        if server != asked:
            yield from follow_owner(call.ctx, invite.guild_id, asked)
        yield from require_dealings(call.ctx, server, invite.guild_id)
        has_mirror = (yield from FindMirrorHead(origin=server, log_id=invite.guild_id)) is not None
        noted = yield from NotePendingLeave(server, invite.guild_id, user.user_id, due_ms, call.ctx.wall_ms)
        if noted is None:
            raise offline()
        is_new = noted
    for _ in range(MAX_ASKED):
        target = f"/federation/v1/invites/{code}/join"
        try:
            answer = yield from ask_owner(server, "POST", target, JoinRequest(user, has_mirror), JoinAnswer)
        except Refusal as refusal:
            is_refused = refusal.code is not ErrorCode.GUILD_OFFLINE
            if invite is not None and is_new and is_refused:  # else an earlier join may still be accepted
                yield from EndPendingLeave(origin=server, pending=PendingLeave(invite.guild_id, user, due_ms))
            if invite is not None and refusal.code is ErrorCode.BANNED:
                yield from end_membership(call.ctx, server, invite.guild_id, user)
            raise
        is_new = False  # they are members now
        member, snapshot = answer.member, answer.snapshot
        is_other = invite is not None and answer.guild_id != invite.guild_id
        if member.user_id != user.user_id or is_other or member_problem(member) is not None:
            raise offline()  # a response to another request
        if snapshot is not None and check_snapshot(snapshot) is not None:
            raise Refusal(ErrorCode.LIMIT_REACHED, "this guild is too large to be mirrored")
        if snapshot is not None and (snapshot.guild_id != answer.guild_id or snapshot_problem(snapshot) is not None):
            raise offline()
        if not is_place(answer.epoch, answer.sequence):
            raise offline()
        if snapshot is not None:
            yield from note_mistaken(call.ctx, server, snapshot, joining=user.user_id)
            yield from clear_mirror(server, snapshot)
        stands = LogPosition(answer.guild_id, answer.epoch, answer.sequence)
        stored = yield from StoreMirror(
            origin=server,
            guild_id=answer.guild_id,
            snapshot=snapshot,
            now_ms=call.ctx.wall_ms,
            joined=member,
            stands=stands,
        )
        if stored and snapshot is not None:
            place = yield from FindMirrorHead(origin=server, log_id=answer.guild_id)
            if (yield from is_mirrored(server, answer.guild_id)) is False:
                # The mirror ended before it was stored here, so this server was not told.
                yield from DropMirror(origin=server, guild_id=answer.guild_id, now_ms=call.ctx.wall_ms, place=place)
                raise Refusal(ErrorCode.NOT_FOUND)
        if stored:
            return MemberRecord(
                answer.guild_id,
                user.user_id,
                user.username,
                member.role,
                member.joined_at_ms,
                user.display_name,
                timed_out_until_ms=member.timed_out_until_ms,
            )
        # The mirror was deleted meanwhile, or lacks the events that tell whether they are a member.
        has_mirror = snapshot is not None
    raise offline()


def _charge(call: Call[Any, Any], count: int) -> None:
    """Count the request as `count` changes, of which dispatch has counted one. Raises Refusal."""
    writes = call.ctx.service.user_writes
    more = min(count, writes.limit) - 1
    wait_secs = writes.hit(call.claims.user_id, call.ctx.now, more)
    if wait_secs is not None:
        raise Limit.WRITES.refusal(wait_secs)


def _require_room(call: Call[Any, Any]) -> Operation[None]:
    limit = call.ctx.service.settings.guilds.max_joined_per_user
    profile = yield from DescribeUser(user_id=call.claims.user_id, limit=0)
    if profile is not None and len(profile.guilds) >= limit:
        raise Refusal(ErrorCode.LIMIT_REACHED, f"you may be a member of at most {limit} guilds; leave one")

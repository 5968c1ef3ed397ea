"""Reconciles a mirror with its owner: members who have left, failed joins, mirrors to purge.

Runs when the owner delivers, because it is reachable then (PROTOCOL 16.8.15).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from openguild_proto.effects.base import Operation
from openguild_proto.effects.federation import AskPeer, PeerAnswer, PeerUnavailable
from openguild_proto.effects.handovers import FindCopies, FindOwnership, ListHandovers, ListMoves
from openguild_proto.effects.mirrors import (
    TOLD_MS,
    ClaimPendingLeave,
    ClearMirror,
    DropMirror,
    EndPendingLeave,
    FindMirrorHead,
    FindNextMirror,
    FindPendingLeaves,
    LeaveMirror,
    NoteMistaken,
    PendingLeave,
)
from openguild_proto.effects.process import WarnOperator
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.http.message import Response
from openguild_proto.limits import MAX_SHORT_ANSWER_BYTES
from openguild_proto.mirror_records import RemoteUser, Snapshot
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Context
from openguild_proto.operations.owner_changes import follow_owner, handovers_at
from openguild_proto.operations.owner_claims import snapshot_problem
from openguild_proto.operations.owners import CHECK_SECS, ask_owner, is_mirrored, offline, pass_to_owner
from openguild_proto.records import MemberChange
from openguild_proto.schemas.between_servers import UserAnswer, UserRequest

MAX_PENDING_LEAVES = 10  # per round
# Ours: for the owner's response, after up to 5 s of discovery, so that a user can leave here before their request times out.
LEAVE_SECS = 3.0
CLEARED_AT_ONCE = 10_000  # ours: events or read positions; the guild is locked for some 100 ms
# Statuses with which an owner has decided: removed, not a member, last owner.
SETTLED = frozenset({204, 404, 409})


def leave_mirrored(call: Call[Any, Any], owner: str, guild_id: str) -> Operation[Response]:
    """Let the caller leave a mirrored guild. If its owner does not decide, they leave here, and the owner is told later.

    Raises Refusal 409 for the last owner of the guild.
    """
    try:
        return (yield from pass_to_owner(call, owner, guild_id, timeout_secs=LEAVE_SECS))
    except Refusal as refusal:
        if call.is_remote or refusal.code in {ErrorCode.LAST_OWNER, ErrorCode.UNAUTHORIZED}:
            raise
    yield from leave_here(owner, guild_id, call.claims.user_id, call.ctx.wall_ms)
    return Response.empty()


def leave_here(owner: str, guild_id: str, user_id: str, now_ms: int, *, even_last: bool = False) -> Operation[None]:
    """End a membership in a mirrored guild; its owner is told later. `even_last`: also of its last owner. Raises Refusal."""
    ownership = yield from FindOwnership(guild_id=guild_id)  # the owner may have responded that the guild has moved
    if ownership is not None and ownership.origin is not None:
        owner = ownership.origin
    copies = yield from FindCopies(owner=owner, guild_id=guild_id)
    is_coming = any(copy.copied for copy in copies or ())
    is_going = any(move.guild_id == guild_id for move in (yield from ListMoves()))
    if is_coming or is_going:  # a guild that is being moved must not be deleted with its last member
        raise offline()
    left = yield from LeaveMirror(origin=owner, guild_id=guild_id, user_id=user_id, now_ms=now_ms, even_last=even_last)
    if left is not MemberChange.DONE:
        raise Refusal(ErrorCode.LAST_OWNER if left is MemberChange.LAST_OWNER else ErrorCode.NOT_FOUND)


def tell_left(ctx: Context, owner: str, guild_id: str, user: RemoteUser) -> Operation[bool]:
    """Tell an owner now that a user has left by `leave_here`. Return False if it is unreachable."""
    return (yield from _tell(ctx, owner, PendingLeave(guild_id, user, ctx.wall_ms)))


def ask_to_let_go(owner: str, guild_id: str, user: RemoteUser) -> Operation[None]:
    """Ask an owner to end a membership that `leave_here` must not end; its delivery then ends it here. Raises PeerUnavailable."""
    yield from _ask_to_leave(owner, guild_id, user)


def end_membership(ctx: Context, owner: str, guild_id: str, user: RemoteUser) -> Operation[None]:
    """End the membership of a local user whom the owner refuses. A restored database may have brought it back."""
    left = yield from LeaveMirror(origin=owner, guild_id=guild_id, user_id=user.user_id, now_ms=ctx.wall_ms)
    if left is MemberChange.DONE:  # they may have been admitted meanwhile, so tell the owner
        yield from _tell(ctx, owner, PendingLeave(guild_id, user, ctx.wall_ms))


def reconcile(ctx: Context, owner: str) -> Operation[None]:
    """Reconcile with an owner, at most once a minute: tell it who has left, and ask if it still delivers one of the mirrors."""
    upkeep = ctx.service.upkeep
    if not upkeep.begin(owner, ctx.now):
        return
    for pending in (yield from FindPendingLeaves(origin=owner, now_ms=ctx.wall_ms, limit=MAX_PENDING_LEAVES)):
        if not (yield from _tell(ctx, owner, pending)):
            return
    yield from _look_at_unmirrored(ctx, owner)
    guild_id = yield from FindNextMirror(origin=owner, past=upkeep.past.get(owner))
    upkeep.past[owner] = guild_id
    if guild_id is None:
        return
    place = yield from FindMirrorHead(origin=owner, log_id=guild_id)
    mirrored = yield from is_mirrored(owner, guild_id)
    if mirrored:
        upkeep.confirmed(guild_id)
    elif (
        mirrored is False
        and upkeep.denied(guild_id, ctx.now)
        and (yield from _knows_its_term(owner, guild_id))
        and (yield from DropMirror(origin=owner, guild_id=guild_id, now_ms=ctx.wall_ms, place=place))
    ):
        yield from WarnOperator(
            "the owner of a guild does not know this mirror, so it is deleted; was the owner's database restored?",
            (("guild_id", guild_id), ("owner", owner)),
        )


def _knows_its_term(owner: str, guild_id: str) -> Operation[bool]:
    """Return whether an owner knows the hand-over that made it the owner, as far as this server does.

    If not, it has yet to take the guild over, or was restored: then the mirror here may be the only copy.
    """
    known = yield from ListHandovers(guild_id=guild_id)
    if not known or known[-1].to != owner:
        return True
    return any(each.term >= known[-1].term for each in (yield from handovers_at(owner, guild_id)))


def read_snapshot(owner: str, guild_id: str) -> Operation[Snapshot | None]:
    """Read a guild from its owner. None: it cannot be read now, or is not valid."""
    try:
        snapshot = yield from ask_owner(owner, "GET", f"/federation/v1/guilds/{guild_id}/snapshot", None, Snapshot)
    except Refusal:
        return None
    is_good = snapshot.guild_id == guild_id and snapshot_problem(snapshot) is None
    return snapshot if is_good else None


def clear_mirror(owner: str, snapshot: Snapshot) -> Operation[None]:
    """Clear a mirror that is behind a snapshot, before the snapshot replaces it."""
    part = yield from ClearMirror(owner, snapshot, CLEARED_AT_ONCE)
    while part is not None:
        part = yield from ClearMirror(owner, snapshot, CLEARED_AT_ONCE, part.past)


def note_mistaken(ctx: Context, owner: str, snapshot: Snapshot, *, joining: str | None = None) -> Operation[None]:
    """Store pending leaves of users whom the owner lists as members but who are not members here. `joining`: about to be one."""
    here = ctx.service.settings.federation.server_name
    own = tuple(member.user_id for member in snapshot.members if member.origin == here and member.user_id != joining)
    if own:
        yield from NoteMistaken(origin=owner, guild_id=snapshot.guild_id, user_ids=own, now_ms=ctx.wall_ms)


def _look_at_unmirrored(ctx: Context, owner: str) -> Operation[None]:
    """Check a guild that an owner delivers but that is not here: only the owner counts some local user as a member."""
    guild_id = ctx.service.upkeep.take_unmirrored(owner, ctx.now)
    if guild_id is None or (yield from FindOwnership(guild_id=guild_id)) is not None:
        return
    snapshot = yield from read_snapshot(owner, guild_id)
    if snapshot is not None:
        yield from note_mistaken(ctx, owner, snapshot)


def _tell(ctx: Context, owner: str, pending: PendingLeave) -> Operation[bool]:
    """Tell an owner that a user is not a member, unless they are just joining. Return False if it is unreachable."""
    if not (yield from ClaimPendingLeave(origin=owner, pending=pending, now_ms=ctx.wall_ms)):
        return True
    pending = replace(pending, due_ms=ctx.wall_ms + TOLD_MS)
    try:
        answer = yield from _ask_to_leave(owner, pending.guild_id, pending.user)
    except PeerUnavailable:
        return False
    status = _status(answer.body) if answer.status == 200 else 0
    if status == ErrorCode.GUILD_MOVED.spec.status:
        is_settled = yield from _is_of_another(ctx, pending.guild_id, owner)
    else:
        is_settled = answer.status == 404 or status in SETTLED
    if is_settled:
        yield from EndPendingLeave(origin=owner, pending=pending)
    return True


def _ask_to_leave(owner: str, guild_id: str, user: RemoteUser) -> Operation[PeerAnswer]:
    asked = msgspec.json.encode(UserRequest(user, "DELETE", f"/guilds/{guild_id}/members/@me"))
    return (yield from AskPeer(owner, "POST", "/federation/v1/requests", asked, CHECK_SECS, MAX_SHORT_ANSWER_BYTES))


def _is_of_another(ctx: Context, guild_id: str, former: str) -> Operation[bool]:
    """Return whether a moved guild is not mirrored here as its former owner's, which then need not be told.

    The new owner is told when it delivers (PROTOCOL 16.5.14). A mirror that follows the guild keeps its pending leaves.
    """
    ownership = yield from FindOwnership(guild_id=guild_id)
    if ownership is None or ownership.origin != former:
        return True
    yield from follow_owner(ctx, guild_id, former)
    return False


def _status(body: bytes) -> int:
    try:
        return msgspec.json.decode(body, type=UserAnswer).status
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0

"""Settles between a mirror and an owner what may have got lost: members who left, joins that failed, mirrors to purge.

It is looked at when the owner delivers, which shows that it can be reached (PROTOCOL 16.8.15).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from openguild_proto.effects.base import Operation
from openguild_proto.effects.federation import AskPeer, PeerAnswer, PeerUnavailable
from openguild_proto.effects.handovers import FindCopies, FindTenure, ListHandovers, ListMoves
from openguild_proto.effects.mirrors import (
    TOLD_MS,
    ClaimParting,
    DropMirror,
    EndParting,
    FindMirrorPlace,
    FindNextMirror,
    FindPartings,
    LeaveMirror,
    NoteMistaken,
    Parting,
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

MAX_PARTINGS = 10  # in one round
# Ours: for the owner's answer, after up to 5 seconds for finding it; a user then leaves here before their request must end.
LEAVE_SECS = 3.0
SETTLED = frozenset(
    {204, 404, 409}
)  # statuses of an owner that has decided: gone, no member, the last one that owns the guild


def leave_mirrored(call: Call[Any, Any], owner: str, guild_id: str) -> Operation[Response]:
    """Let the caller leave a mirrored guild. Where its owner does not decide, they leave here, and the owner is told later.

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
    """End a membership in a mirrored guild; its owner is told later. `even_last`: also that of its last owner. Raises Refusal."""
    tenure = yield from FindTenure(guild_id=guild_id)  # the owner may have answered that the guild has moved
    if tenure is not None and tenure.origin is not None:
        owner = tenure.origin
    copies = yield from FindCopies(owner=owner, guild_id=guild_id)
    is_coming = any(copy.copied for copy in copies or ())
    is_going = any(move.guild_id == guild_id for move in (yield from ListMoves()))
    if is_coming or is_going:  # it is on its way between two servers, and must not go with its last member
        raise offline()
    left = yield from LeaveMirror(origin=owner, guild_id=guild_id, user_id=user_id, now_ms=now_ms, even_last=even_last)
    if left is not MemberChange.DONE:
        raise Refusal(ErrorCode.LAST_OWNER if left is MemberChange.LAST_OWNER else ErrorCode.NOT_FOUND)


def tell_left(ctx: Context, owner: str, guild_id: str, user: RemoteUser) -> Operation[bool]:
    """Tell an owner at once that a user has left by `leave_here`. False: it cannot be reached now."""
    return (yield from _tell(ctx, owner, Parting(guild_id, user, ctx.wall_ms)))


def ask_to_let_go(owner: str, guild_id: str, user: RemoteUser) -> Operation[None]:
    """Ask an owner to end a membership that `leave_here` must not end; then what it delivers ends it. Raises PeerUnavailable."""
    yield from _ask_to_leave(owner, guild_id, user)


def end_membership(ctx: Context, owner: str, guild_id: str, user: RemoteUser) -> Operation[None]:
    """End the membership of a local user that the owner refuses: a restored database may have brought it back."""
    left = yield from LeaveMirror(origin=owner, guild_id=guild_id, user_id=user.user_id, now_ms=ctx.wall_ms)
    if left is MemberChange.DONE:  # they may have been let in meanwhile: the owner is to know
        yield from _tell(ctx, owner, Parting(guild_id, user, ctx.wall_ms))


def keep_up(ctx: Context, owner: str) -> Operation[None]:
    """Settle with an owner, at most once a minute: tell it who has left, and ask whether one of the mirrors is to be there."""
    upkeep = ctx.service.upkeep
    if not upkeep.begin(owner, ctx.now):
        return
    for parting in (yield from FindPartings(origin=owner, now_ms=ctx.wall_ms, limit=MAX_PARTINGS)):
        if not (yield from _tell(ctx, owner, parting)):
            return
    yield from _look_at_unmirrored(ctx, owner)
    guild_id = yield from FindNextMirror(origin=owner, past=upkeep.past.get(owner))
    upkeep.past[owner] = guild_id
    if guild_id is None:
        return
    place = yield from FindMirrorPlace(origin=owner, log_id=guild_id)
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
            "the owner of a guild does not know this mirror, which is deleted: was the database restored?",
            (("guild_id", guild_id), ("owner", owner)),
        )


def _knows_its_term(owner: str, guild_id: str) -> Operation[bool]:
    """Whether an owner knows the hand-over that made it the owner, as far as this server does.

    One that does not is yet to take the guild, or was restored: nobody else may have what is mirrored here.
    """
    known = yield from ListHandovers(guild_id=guild_id)
    if not known or known[-1].to != owner:
        return True
    return any(each.term >= known[-1].term for each in (yield from handovers_at(owner, guild_id)))


def read_snapshot(owner: str, guild_id: str) -> Operation[Snapshot | None]:
    """Read a guild at its owner. None: it cannot be read now, or is not as an honest owner would show it."""
    try:
        snapshot = yield from ask_owner(owner, "GET", f"/federation/v1/guilds/{guild_id}/snapshot", None, Snapshot)
    except Refusal:
        return None
    is_good = snapshot.guild_id == guild_id and snapshot_problem(snapshot) is None
    return snapshot if is_good else None


def note_mistaken(ctx: Context, owner: str, snapshot: Snapshot, *, joining: str | None = None) -> Operation[None]:
    """Note users whom the owner lists as members but who are not members here; the owner is told. `joining`: about to be one."""
    here = ctx.service.settings.federation.server_name
    own = tuple(member.user_id for member in snapshot.members if member.origin == here and member.user_id != joining)
    if own:
        yield from NoteMistaken(origin=owner, guild_id=snapshot.guild_id, user_ids=own, now_ms=ctx.wall_ms)


def _look_at_unmirrored(ctx: Context, owner: str) -> Operation[None]:
    """If an owner delivers a guild that is not here, then a user of this server is a member in the owner's eyes alone."""
    guild_id = ctx.service.upkeep.take_unmirrored(owner, ctx.now)
    if guild_id is None or (yield from FindTenure(guild_id=guild_id)) is not None:
        return
    snapshot = yield from read_snapshot(owner, guild_id)
    if snapshot is not None:
        yield from note_mistaken(ctx, owner, snapshot)


def _tell(ctx: Context, owner: str, parting: Parting) -> Operation[bool]:
    """Tell an owner that a user is no member, unless they are just joining. False: it cannot be reached."""
    if not (yield from ClaimParting(origin=owner, parting=parting, now_ms=ctx.wall_ms)):
        return True
    parting = replace(parting, due_ms=ctx.wall_ms + TOLD_MS)
    try:
        answer = yield from _ask_to_leave(owner, parting.guild_id, parting.user)
    except PeerUnavailable:
        return False
    status = _status(answer.body) if answer.status == 200 else 0
    if status == ErrorCode.GUILD_MOVED.spec.status:
        is_settled = yield from _is_of_another(ctx, parting.guild_id, owner)
    else:
        is_settled = answer.status == 404 or status in SETTLED
    if is_settled:
        yield from EndParting(origin=owner, parting=parting)
    return True


def _ask_to_leave(owner: str, guild_id: str, user: RemoteUser) -> Operation[PeerAnswer]:
    asked = msgspec.json.encode(UserRequest(user, "DELETE", f"/guilds/{guild_id}/members/@me"))
    return (yield from AskPeer(owner, "POST", "/federation/v1/requests", asked, CHECK_SECS, MAX_SHORT_ANSWER_BYTES))


def _is_of_another(ctx: Context, guild_id: str, former: str) -> Operation[bool]:
    """Whether a guild that has moved is not mirrored here as that of its former owner, which need not be told any more.

    The new owner is told when it delivers (PROTOCOL 16.5.14). A mirror that follows the guild takes its partings along.
    """
    tenure = yield from FindTenure(guild_id=guild_id)
    if tenure is None or tenure.origin != former:
        return True
    yield from follow_owner(ctx, guild_id, former)
    return False


def _status(body: bytes) -> int:
    try:
        return msgspec.json.decode(body, type=UserAnswer).status
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0

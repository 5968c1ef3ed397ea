"""Follows a guild to its new owner: finds the valid hand-overs, and tells other servers (PROTOCOL 16.10)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from openguild_proto.effects.base import Operation
from openguild_proto.effects.federation import AskPeer, Discover, ListOwnKeys, PeerUnavailable, Standing
from openguild_proto.effects.handovers import (
    FindOwnership,
    FindSilentOwners,
    FollowHandover,
    ListHandovers,
    SilentOwner,
)
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.federation.handovers import REVOKED, SUCCESSION, handover_problem, is_signed, names_servers
from openguild_proto.federation.policy import judge
from openguild_proto.http.message import Response
from openguild_proto.limits import MAX_FOLLOWED_HANDOVERS, MAX_LOST_OWNERS, MAX_SHORT_ANSWER_BYTES
from openguild_proto.mirror_records import Handover, Ownership
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Context
from openguild_proto.operations.route import route
from openguild_proto.operations.servers import keys_of, known_peer
from openguild_proto.schemas.between_servers import OwnerProof


@route(
    "GET", "/federation/v1/guilds/{guild_id}/owner", "List the hand-overs of a guild", {200: OwnerProof},
    auth="server", client=False, errors=(ErrorCode.NOT_FOUND,),
)  # fmt: skip
def show_owner(call: Call[None, None], guild_id: str) -> Operation[Response]:
    """Show the statements that this server has made or followed. A server that knows an earlier owner finds the present one."""
    handovers = yield from ListHandovers(guild_id=guild_id)
    if not handovers:
        raise Refusal(ErrorCode.NOT_FOUND)
    return Response.json(OwnerProof(list(handovers[-MAX_FOLLOWED_HANDOVERS:])))


def moved(guild_id: str, owner: str) -> Refusal:
    """Return the refusal 421 `guild_moved`: the calling server must request the hand-overs, and then call their `to`."""
    details = (FieldProblem("guild_id", guild_id), FieldProblem("owner", owner))
    return Refusal(ErrorCode.GUILD_MOVED, details=details)


def follow_owner(ctx: Context, guild_id: str, told_by: str) -> Operation[bool]:
    """Read the hand-overs of a guild from another server, and follow the valid ones. False: none is valid."""
    handovers = yield from handovers_at(told_by, guild_id)
    return (yield from follow(ctx, guild_id, handovers, told_by))


def handovers_at(server: str, guild_id: str) -> Operation[tuple[Handover, ...]]:
    """Return the hand-overs of a guild that another server has made or followed; none if it does not answer."""
    try:
        answer = yield from AskPeer(
            server, "GET", f"/federation/v1/guilds/{guild_id}/owner", max_bytes=MAX_SHORT_ANSWER_BYTES
        )
        proof = msgspec.json.decode(answer.body, type=OwnerProof) if answer.status == 200 else OwnerProof()
    except (PeerUnavailable, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
    return tuple(proof.handovers[:MAX_FOLLOWED_HANDOVERS])


def follow(ctx: Context, guild_id: str, handovers: Iterable[Handover], told_by: str) -> Operation[bool]:
    """Follow the valid statements, one after the other. False: none is valid."""
    here = ctx.service.settings.federation.server_name
    chain = sorted(handovers, key=lambda each: each.term)[:MAX_FOLLOWED_HANDOVERS]
    if chain and chain[-1].to == here:  # the guild came back here
        return False
    is_followed = False
    for told in chain:
        ownership = yield from FindOwnership(guild_id=guild_id)
        if ownership is None:
            return False
        if told.term <= ownership.term:
            continue
        handover = yield from _counting(ctx, ownership, told, told_by)
        if handover is None or not (yield from FollowHandover(handover=handover)):
            break
        is_followed = True
    return is_followed


def _counting(ctx: Context, ownership: Ownership, told: Handover, told_by: str) -> Operation[Handover | None]:
    """Return the statement if it is valid, or the one that the owner itself has followed instead; None: none is valid.

    An owner may always state that it is no longer the owner, even by a statement that it had revoked.
    """
    owner = ownership.origin or ctx.service.settings.federation.server_name
    problem = handover_problem(told, ownership, owner, ctx.wall_ms)
    if problem is not None and (problem != REVOKED or ownership.origin is None):
        return None
    if not (yield from is_authentic(ctx, told)):
        return None
    if told.kind != SUCCESSION or told_by == owner or ownership.origin is None:
        return told
    if problem is None and (yield from secs_since_contact(ctx, owner)) >= _lost_after_secs(ctx):
        return told
    for own in (yield from handovers_at(owner, ownership.guild_id)):
        if handover_problem(own, ownership, owner, ctx.wall_ms) in {None, REVOKED} and (
            yield from is_authentic(ctx, own)
        ):
            return own
    return None


def _lost_after_secs(ctx: Context) -> int:
    return ctx.service.settings.federation.owner_lost_after_secs


def former_handovers(ctx: Context, guild_id: str, owner: str) -> Operation[tuple[Handover, ...]]:
    """Return the authentic hand-overs up to the one that made `owner` the guild's owner: those known here, and those from before
    the mirror began, which the owner has. Two servers may have owned the guild in one term (16.10.12)."""
    known = {each.term: each for each in (yield from ListHandovers(guild_id=guild_id))}
    ownership = yield from FindOwnership(guild_id=guild_id)
    last = ownership.term if ownership is not None else 1
    if len(known) < last - 1:
        for each in (yield from handovers_at(owner, guild_id)):
            if each.term not in known and each.guild_id == guild_id and (yield from is_authentic(ctx, each)):
                known[each.term] = each
    return tuple(known[term] for term in sorted(known) if term <= last)


def is_authentic(ctx: Context, handover: Handover) -> Operation[bool]:
    """Return whether the owner that a statement names has signed it, with a key that was valid at the time."""
    here = ctx.service.settings.federation.server_name
    if not names_servers(handover):
        return False
    if handover.owner == here:
        past = {f"ed25519:{key.key_id}": key.public_key for key in (yield from ListOwnKeys())}
        return is_signed(handover, {**past, **(yield from keys_of(ctx, here))[here]})
    keys = yield from keys_of(ctx, handover.owner, handover.issued_at_ms)
    if not keys[handover.owner] and (yield from known_peer(ctx, handover.owner)) is None:
        try:
            yield from Discover(server=handover.owner)
        except PeerUnavailable:
            return False
        ctx.service.peers.drop(handover.owner)
        keys = yield from keys_of(ctx, handover.owner, handover.issued_at_ms)
    return is_signed(handover, keys[handover.owner])


def lost_owners(ctx: Context) -> Operation[tuple[SilentOwner, ...]]:
    """Return the lost owners of mirrored guilds, without those that the operator denies."""
    before_ms, policy = ctx.wall_ms - 1_000 * _lost_after_secs(ctx), ctx.service.settings.federation
    found: list[SilentOwner] = []
    for owner in (yield from FindSilentOwners(before_ms=before_ms, limit=MAX_LOST_OWNERS)):
        peer = yield from known_peer(ctx, owner.server)
        if judge(policy, owner.server, peer).standing is not Standing.DENY:
            found.append(owner)
    return tuple(found)


def secs_since_contact(ctx: Context, server: str) -> Operation[float]:
    """Return how long ago the last contact with a server was."""
    peer = yield from known_peer(ctx, server)
    return (ctx.wall_ms - (peer.contacted_ms if peer is not None else 0)) / 1_000


def tell_former_owner(guild_id: str, server: str) -> Operation[bool | None]:
    """Tell a server that delivers a guild as owner that another server owns it, if it has stated so itself. False: it insists."""
    if any(handover.owner == server for handover in (yield from ListHandovers(guild_id=guild_id))):
        return (yield from tell_of_owner(guild_id, server))
    return None


def tell_of_owner(guild_id: str, server: str) -> Operation[bool | None]:
    """Send a server the hand-overs that this one has followed. False: it follows none; None: it does not answer, and gets them
    again when it delivers."""
    body = msgspec.json.encode(
        OwnerProof(list((yield from ListHandovers(guild_id=guild_id))[-MAX_FOLLOWED_HANDOVERS:]))
    )
    try:
        answer = yield from AskPeer(
            server, "POST", f"/federation/v1/guilds/{guild_id}/owner", body, max_bytes=MAX_SHORT_ANSWER_BYTES
        )
    except PeerUnavailable:
        return None
    return {204: True, 404: False}.get(answer.status)

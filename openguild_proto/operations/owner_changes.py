"""Follows a guild to its new owner: which hand-overs count, and telling other servers of them (PROTOCOL 16.10)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from openguild_proto.effects.base import Operation
from openguild_proto.effects.federation import AskPeer, Discover, ListOwnKeys, PeerUnavailable
from openguild_proto.effects.handovers import FindTenure, FollowHandover, ListHandovers
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.federation.handovers import SUCCESSION, handover_problem, is_signed
from openguild_proto.http.message import Response
from openguild_proto.limits import MAX_FOLLOWED_HANDOVERS
from openguild_proto.mirror_records import Handover
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Context
from openguild_proto.operations.route import route
from openguild_proto.operations.servers import keys_of, known_peer
from openguild_proto.schemas.between_servers import OwnerProof


@route(
    "GET", "/federation/v1/guilds/{guild_id}/owner", "The hand-overs of a guild", {200: OwnerProof},
    auth="server", client=False, errors=(ErrorCode.NOT_FOUND,),
)  # fmt: skip
def show_owner(call: Call[None, None], guild_id: str) -> Operation[Response]:
    """Show the statements that this server has made or followed; whoever knows an owner before can check who is it now."""
    handovers = yield from ListHandovers(guild_id=guild_id)
    if not handovers:
        raise Refusal(ErrorCode.NOT_FOUND)
    return Response.json(OwnerProof(list(handovers[-MAX_FOLLOWED_HANDOVERS:])))


@route(
    "POST", "/federation/v1/guilds/{guild_id}/owner", "Another server owns a guild that is here", {204: None},
    auth="server", client=False, body=OwnerProof, errors=(ErrorCode.NOT_FOUND,),
)  # fmt: skip
def told_of_owner(call: Call[OwnerProof, None], guild_id: str) -> Operation[Response]:
    """Follow the statements that count; idempotent. 404 where none does."""
    if not (yield from follow(call.ctx, guild_id, call.body.handovers, call.server.server)):
        raise Refusal(ErrorCode.NOT_FOUND)
    return Response.empty()


def moved(guild_id: str, owner: str) -> Refusal:
    """Return the refusal 421 `guild_moved`: the server that asks must ask for the hand-overs, and then their `to`."""
    details = (FieldProblem("guild_id", guild_id), FieldProblem("owner", owner))
    return Refusal(ErrorCode.GUILD_MOVED, details=details)


def follow_owner(ctx: Context, guild_id: str, told_by: str) -> Operation[bool]:
    """Read the hand-overs of a guild at another server, and follow those that count. False: none does."""
    handovers = yield from handovers_at(told_by, guild_id)
    return (yield from follow(ctx, guild_id, handovers, told_by))


def handovers_at(server: str, guild_id: str) -> Operation[tuple[Handover, ...]]:
    """Return the hand-overs of a guild that another server has made or followed; none where it does not answer."""
    try:
        answer = yield from AskPeer(server, "GET", f"/federation/v1/guilds/{guild_id}/owner")
        proof = msgspec.json.decode(answer.body, type=OwnerProof) if answer.status == 200 else OwnerProof()
    except (PeerUnavailable, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
    return tuple(proof.handovers[:MAX_FOLLOWED_HANDOVERS])


def follow(ctx: Context, guild_id: str, handovers: Iterable[Handover], told_by: str) -> Operation[bool]:
    """Follow the statements that count, one after the other. False: none does."""
    here = ctx.service.settings.federation.server_name
    is_followed = False
    for handover in sorted(handovers, key=lambda each: each.term)[:MAX_FOLLOWED_HANDOVERS]:
        tenure = yield from FindTenure(guild_id=guild_id)
        if tenure is None:
            return False
        if handover.term <= tenure.term:
            continue
        if handover_problem(handover, tenure, tenure.origin or here, ctx.wall_ms) is not None:
            break
        if not (yield from is_authentic(ctx, handover)):
            break
        if handover.kind == SUCCESSION and not (yield from _is_lost(ctx, handover, told_by)):
            break
        if not (yield from FollowHandover(handover=handover)):
            break
        is_followed = True
    return is_followed


def former_handovers(ctx: Context, guild_id: str, owner: str) -> Operation[tuple[Handover, ...]]:
    """Return the hand-overs that made `owner` the guild's owner, as far as they are authentic: those that are known here, and
    those of before the mirror began, which the owner has."""
    known = {each.term: each for each in (yield from ListHandovers(guild_id=guild_id))}
    tenure = yield from FindTenure(guild_id=guild_id)
    last = tenure.term if tenure is not None else 1
    if len(known) < last - 1:
        for each in (yield from handovers_at(owner, guild_id)):
            if each.term not in known and each.guild_id == guild_id and (yield from is_authentic(ctx, each)):
                known[each.term] = each
    chain: list[Handover] = []
    while last in known and known[last].to == owner:
        chain.insert(0, known[last])
        owner, last = known[last].owner, last - 1
    return tuple(chain)


def is_authentic(ctx: Context, handover: Handover) -> Operation[bool]:
    """Return whether the owner that a statement names has signed it, with a key that was good at the time."""
    here = ctx.service.settings.federation.server_name
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


def _is_lost(ctx: Context, handover: Handover, told_by: str) -> Operation[bool]:
    """Return whether the owner may be succeeded: it is lost, or says itself that it was succeeded."""
    owner = handover.owner
    if owner in {told_by, ctx.service.settings.federation.server_name}:
        return True
    if (yield from heard_secs_ago(ctx, owner)) >= ctx.service.settings.federation.owner_lost_after_secs:
        return True
    return handover in (yield from handovers_at(owner, handover.guild_id))


def heard_secs_ago(ctx: Context, server: str) -> Operation[float]:
    """Return how long ago a server was heard of."""
    peer = yield from known_peer(ctx, server)
    return (ctx.wall_ms - (peer.contacted_ms if peer is not None else 0)) / 1_000


def tell_former_owner(guild_id: str, server: str) -> Operation[None]:
    """Tell a server that delivers a guild as its owner that another one is, if it has said so itself."""
    handovers = yield from ListHandovers(guild_id=guild_id)
    if not any(handover.owner == server for handover in handovers):
        return
    body = msgspec.json.encode(OwnerProof(list(handovers[-MAX_FOLLOWED_HANDOVERS:])))
    try:
        yield from AskPeer(server, "POST", f"/federation/v1/guilds/{guild_id}/owner", body)
    except PeerUnavailable:
        return  # it is told at its next delivery

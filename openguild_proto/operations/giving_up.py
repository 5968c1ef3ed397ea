"""A guild that two servers claim to own: one gives it up, the other continues (PROTOCOL 16.10.12).

This happens if an owner was cut off, its successor took over, and the owner had revoked the statement meanwhile, or handed
the guild to a third server. Neither may step back by itself. Otherwise a server whose statement was revoked could take the guild
by keeping silent, and a former owner could take a guild back by signing another statement for the same term.
"""

from __future__ import annotations

from collections.abc import Iterable

from openguild_proto.effects.base import Operation
from openguild_proto.effects.handovers import FindOwnership, FollowHandover, ListHandovers, TakeGuild
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.federation.handovers import MOVE, MOVE_MS, chain_to, signed_handover
from openguild_proto.federation.policy import Mode
from openguild_proto.http.message import Response
from openguild_proto.limits import MAX_FOLLOWED_HANDOVERS
from openguild_proto.mirror_records import Handover, Ownership
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Context
from openguild_proto.operations.owner_changes import follow, is_authentic, tell_of_owner
from openguild_proto.operations.owners import is_mirrored
from openguild_proto.operations.route import route
from openguild_proto.operations.taking_over import new_epoch
from openguild_proto.schemas.between_servers import OwnerProof

TWO_OWNERS = "another server has taken over a guild that this one owns: one of the two must give it up"


@route(
    "POST", "/federation/v1/guilds/{guild_id}/owner", "Announce the owner of a guild", {204: None},
    auth="server", client=False, body=OwnerProof, errors=(ErrorCode.NOT_FOUND,),
)  # fmt: skip
def learn_owner(call: Call[OwnerProof, None], guild_id: str) -> Operation[Response]:
    """Follow valid statements, or continue as owner if another owner has given the guild up; idempotent. 404 if neither applies."""
    handovers = call.body.handovers
    is_followed = yield from follow(call.ctx, guild_id, handovers, call.server.server)
    if (
        not is_followed
        and not (yield from _follows_already(guild_id, handovers))
        and not (yield from _go_on(call.ctx, guild_id, handovers))
    ):
        raise Refusal(ErrorCode.NOT_FOUND)
    return Response.empty()


def _follows_already(guild_id: str, handovers: Iterable[Handover]) -> Operation[bool]:
    """Return whether this server already follows the newest of these statements, because another mirror told it first."""
    ownership = yield from FindOwnership(guild_id=guild_id)
    newest = max(handovers, key=lambda each: each.term, default=None)
    if ownership is None or ownership.origin is None or newest is None:
        return False
    return newest in (yield from ListHandovers(guild_id=guild_id))


def give_up(ctx: Context, guild_id: str, to: str) -> Operation[str | None]:
    """Give up a guild of this server to another server that claims to own it. Idempotent. Return a text: the reason why not.

    Events that were appended only here are lost.
    """
    service = ctx.service
    here = service.settings.federation.server_name
    ownership = yield from FindOwnership(guild_id=guild_id)
    if ownership is not None and ownership.origin == to:
        return None
    if ownership is None or ownership.origin is not None:
        return "this server does not own the guild"
    if service.settings.federation.mode is Mode.OFF or service.signer is None or to == here:
        return "no other server can receive the guild"
    if (yield from is_mirrored(to, guild_id)) is not True:
        return f"{to} does not confirm that it owns the guild and delivers it to this server"
    handover = signed_handover(
        Handover(MOVE, guild_id, here, to, ownership.term + 1, ctx.wall_ms, ctx.wall_ms + MOVE_MS), service.signers
    )
    if not (yield from FollowHandover(handover=handover)):
        return "another server owns the guild now"
    yield from tell_of_owner(guild_id, to)
    return None


def _go_on(ctx: Context, guild_id: str, handovers: Iterable[Handover]) -> Operation[bool]:
    """Continue as owner, in a later term, of a guild that another owner has given up to this server. False: none has."""
    here = ctx.service.settings.federation.server_name
    ownership = yield from FindOwnership(guild_id=guild_id)
    if ownership is None or ownership.origin is not None:
        return False
    chain = yield from _known_chain(ctx, ownership, handovers, here)
    if (
        not chain
        or chain[-1].kind != MOVE
        or chain[-1].term <= ownership.term
        or chain[-1].expires_at_ms <= ctx.wall_ms
    ):
        return chain[-1:] != () and chain[-1] in (yield from ListHandovers(guild_id=guild_id))
    return (
        yield from TakeGuild(
            handover=chain[-1], epoch=new_epoch(ctx), logs=None, invites=(), now_ms=ctx.wall_ms, former=chain[:-1]
        )
    )


def _known_chain(
    ctx: Context, ownership: Ownership, handovers: Iterable[Handover], to: str
) -> Operation[tuple[Handover, ...]]:
    """Return the authentic statements that lead from a known owner of the guild to `to`; () if there are none."""
    guild_id = ownership.guild_id
    owners = {ownership.term: ctx.service.settings.federation.server_name}
    for known in (yield from ListHandovers(guild_id=guild_id)):
        owners.setdefault(known.term, known.to)
        owners.setdefault(known.term - 1, known.owner)
    chain = chain_to(to, [each for each in handovers if each.guild_id == guild_id][-MAX_FOLLOWED_HANDOVERS:], owners)
    for handover in chain:
        if not (yield from is_authentic(ctx, handover)):
            return ()
    return chain


def has_claim(ctx: Context, ownership: Ownership, handovers: Iterable[Handover], server: str) -> Operation[bool]:
    """Return whether a server can prove that it owns a guild of this server, by the signature of a known owner."""
    return bool((yield from _known_chain(ctx, ownership, handovers, server)))

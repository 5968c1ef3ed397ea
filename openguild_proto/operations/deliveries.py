"""Receives new events of the logs that this server mirrors (PROTOCOL 16.8)."""

from __future__ import annotations

from msgspec.structs import replace

from openguild_proto.canonical.keys import decode_unpadded
from openguild_proto.canonical.verify import UnverifiedEvent, unsigned_by
from openguild_proto.effects.base import Operation
from openguild_proto.effects.federation import Standing
from openguild_proto.effects.handovers import FindOwnership
from openguild_proto.effects.mirrors import (
    REPEATED,
    DropMirror,
    FindMirrorHead,
    MirrorEvents,
    MirrorOutcome,
    StoreMirror,
)
from openguild_proto.effects.process import LetOthersRun, WarnOperator
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Response
from openguild_proto.limits import (
    EVENTS_OF_TURN,
    MAX_DELIVERY_BODY_BYTES,
    MAX_SAFE_INTEGER,
    MAX_SEQUENCE,
    OVERLOADED_RETRY_SECS,
)
from openguild_proto.mirror_records import Handover, MirroredEvent, Ownership
from openguild_proto.operations.call import Call
from openguild_proto.operations.giving_up import TWO_OWNERS, has_claim
from openguild_proto.operations.mirrored_events import read_mirrored
from openguild_proto.operations.owner_changes import follow, handovers_at, tell_former_owner, tell_of_owner
from openguild_proto.operations.owners import is_mirrored
from openguild_proto.operations.route import route
from openguild_proto.operations.servers import (
    EventKeys,
    denied,
    keys_for_events,
    read_keys_again,
    require_unrestricted,
    verdict_in,
    with_own_past,
)
from openguild_proto.operations.upkeep import clear_mirror, note_mistaken, read_snapshot, reconcile
from openguild_proto.records import LogPosition
from openguild_proto.schemas.between_servers import (
    Delivery,
    DeliveryAnswer,
    EndedGuild,
    LogDelivery,
    MirrorPosition,
    check_delivery,
)
from openguild_proto.schemas.decode import parse_uuid

TOO_OFTEN = "its mirror was rebuilt within the last minute"


@route(
    "POST", "/federation/v1/deliveries", "Deliver new events of logs that this server mirrors", {200: DeliveryAnswer},
    auth="server", client=False, body=Delivery, max_body_bytes=MAX_DELIVERY_BODY_BYTES,
    errors=(ErrorCode.SERVER_QUARANTINED,),
)  # fmt: skip
def deliver(call: Call[Delivery, None]) -> Operation[Response]:
    """Store the events, and answer with the position of each mirror. Events that are stored already change nothing."""
    with call.ctx.service.deliveries.slot(call.server.server, call.ctx.now) as is_free:
        if not is_free:
            raise Refusal(ErrorCode.OVERLOADED, wait_secs=OVERLOADED_RETRY_SECS)
        return (yield from _deliver(call))


def _deliver(call: Call[Delivery, None]) -> Operation[Response]:
    body, owner = call.body, call.server.server
    require_unrestricted(call.ctx, call.server)
    problem = check_delivery(body)
    if problem is not None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("logs", problem),))
    keys = yield from keys_for_events(call.ctx, owner)
    has_all_keys, has_new_keys, is_flooding = False, False, False
    told: dict[str, bool] = {}  # by guild: whether the sender is found to own it now
    places: list[MirrorPosition] = []
    purged: list[str] = []
    for part in body.logs:
        outcome = yield from _take(call, part, keys)
        if isinstance(outcome, str) and not has_all_keys:  # may be signed with a replaced key of this server
            keys, has_all_keys = (yield from with_own_past(call.ctx, keys)), True
            outcome = yield from _take(call, part, keys)
        if outcome == unsigned_by(owner) and not has_new_keys:
            has_new_keys = True  # a replica of the owner may use a new key before the others
            if (yield from read_keys_again(call.ctx, owner)):
                keys = yield from with_own_past(call.ctx, (yield from keys_for_events(call.ctx, owner)))
                outcome = yield from _take(call, part, keys)
        if not isinstance(outcome, str) and outcome.status == "unknown" and (yield from _is_its(call, part, told)):
            outcome = yield from _take(call, part, keys)
        if isinstance(outcome, str):
            known = parse_uuid(part.log_id) == part.log_id
            place = (yield from FindMirrorHead(origin=owner, log_id=part.log_id)) if known else None
            places.append(_answered(part.log_id, "refused", place, outcome))
            continue
        if outcome.status == "epoch":
            if call.ctx.service.mirror_renewals.hit(f"{owner} {part.guild_id}", call.ctx.now) is not None:
                is_flooding, outcome = True, replace(outcome, reason=TOO_OFTEN)
            elif (yield from _begin_anew(call, owner, part.guild_id)):
                place = yield from FindMirrorHead(origin=owner, log_id=part.log_id)
                outcome = MirrorOutcome("ok" if place is not None else "unknown", place)
        if outcome.status == "unknown":
            call.ctx.service.upkeep.unmirrored(owner, part.guild_id, call.ctx.now)
        if outcome.ended:
            purged.append(part.guild_id)
        places.append(_answered(part.log_id, outcome.status, outcome.place, outcome.reason))
    for ended in body.ended:
        if _ruled_out(call, ended.guild_id) is not None:
            continue
        purged += yield from _purge(owner, ended, call.ctx.wall_ms)
    yield from reconcile(call.ctx, owner)
    answer = Response.json(DeliveryAnswer(places, purged))
    return replace(answer, rejection=ErrorCode.SERVER_RATE_LIMIT.spec.reason) if is_flooding else answer


def _ruled_out(call: Call[Delivery, None], guild_id: str) -> str | None:
    """Return why the operator accepts no new events of the guild from its owner. None: they are accepted."""
    verdict = verdict_in(call.ctx, call.server, guild_id)
    return None if verdict.standing is Standing.ALLOW else denied(verdict).message


def _purge(owner: str, ended: EndedGuild, now_ms: int) -> Operation[tuple[str, ...]]:
    """Delete the mirror of a guild, if it is from before the end that the owner names. Return the guild, if nothing is left.

    A mirror that is further than that place, or has another epoch, may be from a later join: its owner is asked.
    """
    guild_id = ended.guild_id
    if parse_uuid(guild_id) != guild_id:
        return ()
    place = yield from FindMirrorHead(origin=owner, log_id=guild_id)
    if place is None:
        return (guild_id,)
    is_later = ended.epoch and (place.epoch != ended.epoch or place.sequence > ended.sequence)
    if is_later and (yield from is_mirrored(owner, guild_id)) is not False:
        return ()
    is_gone = yield from DropMirror(origin=owner, guild_id=guild_id, now_ms=now_ms, place=place)
    return (guild_id,) if is_gone else ()


def _take(call: Call[Delivery, None], part: LogDelivery, keys: EventKeys) -> Operation[MirrorOutcome | str]:
    """Store one part. Return a text if the whole part is refused: the reason."""
    owner, here = call.server.server, call.ctx.service.settings.federation.server_name
    ruled_out = _ruled_out(call, part.guild_id)
    if ruled_out is not None:
        return ruled_out
    well_formed = parse_uuid(part.log_id) == part.log_id and parse_uuid(part.guild_id) == part.guild_id
    if (
        not well_formed
        or not 0 <= part.after <= MAX_SEQUENCE - len(part.events)
        or not 1 <= part.epoch <= MAX_SAFE_INTEGER
    ):
        return "it contains no valid position of a log"
    of_guild = part.log_id == part.guild_id
    events: list[MirroredEvent] = []
    try:
        for at, line in enumerate(part.events, start=1):
            if at % EVENTS_OF_TURN == 0:
                yield from LetOthersRun()
            place = LogPosition(part.log_id, part.epoch, part.after + at)
            read = read_mirrored(line.event.encode(), place, owner, here, keys.at, at_ms=line.at_ms, of_guild=of_guild)
            events.append(read)
        chain = decode_unpadded(part.chain) if part.chain is not None else None
        receipt = decode_unpadded(part.receipt) if part.receipt is not None else None
    except (UnverifiedEvent, ValueError) as fault:
        return str(fault)
    if len({event.event_id for event in events}) < len(events):
        return REPEATED
    return (
        yield from MirrorEvents(
            origin=owner,
            guild_id=part.guild_id,
            log_id=part.log_id,
            epoch=part.epoch,
            events=tuple(events),
            chain=chain,
            receipt=receipt,
        )
    )


def _is_its(call: Call[Delivery, None], part: LogDelivery, told: dict[str, bool]) -> Operation[bool]:
    """Return whether a guild of another server is the sender's now. A former owner is told the present owner."""
    sender, guild_id = call.server.server, part.guild_id
    if guild_id in told:
        return told[guild_id]
    ownership = (yield from FindOwnership(guild_id=guild_id)) if parse_uuid(guild_id) == guild_id else None
    told[guild_id] = False
    if ownership is not None and ownership.origin != sender:
        handovers = yield from handovers_at(sender, guild_id)
        told[guild_id] = yield from follow(call.ctx, guild_id, handovers, sender)
        if not told[guild_id]:
            yield from _dispute(call, ownership, handovers)
    return told[guild_id]


def _dispute(call: Call[Delivery, None], ownership: Ownership, handovers: tuple[Handover, ...]) -> Operation[None]:
    """Tell a former owner which server owns the guild, and warn the operator if the sender can prove that it still owns it."""
    sender, guild_id = call.server.server, ownership.guild_id
    insists = (yield from tell_former_owner(guild_id, sender)) is False
    if ownership.origin is None and (insists or (yield from has_claim(call.ctx, ownership, handovers, sender))):
        yield from WarnOperator(TWO_OWNERS, (("guild_id", guild_id), ("server", sender)))


def _answered(log_id: str, status: str, place: LogPosition | None, reason: str | None = None) -> MirrorPosition:
    if place is None:
        return MirrorPosition(log_id, "unknown" if status == "ok" else status, reason=reason)
    return MirrorPosition(log_id, status, place.epoch, place.sequence, reason)


def _begin_anew(call: Call[Delivery, None], owner: str, guild_id: str) -> Operation[bool]:
    """Store the guild again, because its owner has a new epoch. False: it cannot be read now."""
    snapshot = yield from read_snapshot(owner, guild_id)
    ownership = yield from FindOwnership(guild_id=guild_id)
    if snapshot is not None and ownership is not None and snapshot.term < ownership.term:
        # The owner may not know yet that another owner has given the guild up.
        told = yield from tell_of_owner(guild_id, owner)
        snapshot = snapshot if told is False else (yield from read_snapshot(owner, guild_id)) if told else None
    if snapshot is None:
        return False
    yield from note_mistaken(call.ctx, owner, snapshot)
    yield from clear_mirror(owner, snapshot)
    return (yield from StoreMirror(origin=owner, guild_id=guild_id, snapshot=snapshot, now_ms=call.ctx.wall_ms))

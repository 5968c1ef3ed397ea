"""Takes over guilds of other servers: those moved here, and those whose owner is lost (PROTOCOL 16.10)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from openguild_proto.canonical.keys import decode_unpadded
from openguild_proto.canonical.verify import UnverifiedEvent
from openguild_proto.effects.base import Operation
from openguild_proto.effects.handovers import (
    AbsorbHistory,
    FindCopies,
    FindOwnership,
    ListHandovers,
    LogCopy,
    StageHistory,
    StartAbsorbing,
    TakeGuild,
)
from openguild_proto.effects.mirrors import MirrorEvents
from openguild_proto.effects.process import LetOthersRun
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.federation.handovers import MOVE, SUCCESSION, handover_problem
from openguild_proto.http.message import Response
from openguild_proto.limits import (
    EVENTS_OF_TURN,
    MAX_COPIED_PAGES,
    MAX_DELIVERED_EVENTS,
    MAX_HANDOVER_BODY_BYTES,
    MAX_NONCE_CHARS,
    MAX_PAGE_ANSWER_BYTES,
    MAX_SAFE_INTEGER,
)
from openguild_proto.mirror_records import Handover, HistoricEvent
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Context
from openguild_proto.operations.mirrored_events import read_mirrored
from openguild_proto.operations.owner_changes import former_handovers, is_authentic, secs_since_contact
from openguild_proto.operations.owner_claims import transferred_problem
from openguild_proto.operations.owners import ask_owner, offline
from openguild_proto.operations.route import route
from openguild_proto.operations.servers import EventKeys, keys_for_events, require_unrestricted, with_own_past
from openguild_proto.records import LogPosition
from openguild_proto.schemas.between_servers import HandoverProgress, HandoverStep, HistoryPage, TransferredEvent

EPOCH_BYTES = 8
FINGERPRINT_BYTES = 32


@route(
    "POST", "/federation/v1/guilds/{guild_id}/handover", "Move a guild to this server, step by step",
    {200: HandoverProgress}, auth="server", client=False, body=HandoverStep, max_body_bytes=MAX_HANDOVER_BODY_BYTES,
    errors=(ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN, ErrorCode.SERVER_QUARANTINED, ErrorCode.GUILD_OFFLINE),
)  # fmt: skip
def take_step(call: Call[HandoverStep, None], guild_id: str) -> Operation[Response]:
    """Copy some of the history; when nothing is missing and the statement has arrived, own the guild. Idempotent."""
    ctx, owner, handover = call.ctx, call.server.server, call.body.handover
    require_unrestricted(ctx, call.server, guild_id)
    if handover is not None and handover in (yield from ListHandovers(guild_id=guild_id)):
        return Response.json(HandoverProgress("owner"))
    if owner not in ctx.service.settings.federation.take_guilds_from:
        raise Refusal(
            ErrorCode.FORBIDDEN, "this server does not accept guilds from that server (federation.take_guilds_from)"
        )
    copies = yield from FindCopies(owner=owner, guild_id=guild_id)
    if copies is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    problem = next(filter(None, map(transferred_problem, call.body.invites)), None)
    if problem is not None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("invites", problem),))
    if handover is not None:
        yield from _check(ctx, guild_id, owner, handover)
    heads = {log.log_id: log.sequence for log in call.body.logs}
    former = yield from former_handovers(ctx, guild_id, owner)
    owners = (owner, *dict.fromkeys(each.owner for each in reversed(former)))
    missing = yield from _copy(ctx, owners, guild_id, copies, heads)
    if handover is None or missing:
        copies = yield from FindCopies(owner=owner, guild_id=guild_id)
        stands = copies[0].head if copies else 0
        return Response.json(HandoverProgress("copying" if missing else "whole", missing, stands))
    taken = yield from TakeGuild(
        handover=handover,
        epoch=new_epoch(ctx),
        logs=tuple(call.body.logs),
        invites=tuple(call.body.invites),
        now_ms=ctx.wall_ms,
        former=former,
    )
    return Response.json(HandoverProgress("owner" if taken else "copying"))


def _check(ctx: Context, guild_id: str, owner: str, handover: Handover) -> Operation[None]:
    """Raise Refusal 400 unless the statement makes this server the guild's owner."""
    ownership = yield from FindOwnership(guild_id=guild_id)
    problem = (
        handover_problem(handover, ownership, owner, ctx.wall_ms) if ownership is not None else "there is no such guild"
    )
    if problem is None and (handover.kind != MOVE or handover.to != ctx.service.settings.federation.server_name):
        problem = "it does not move the guild to this server"
    if problem is None and not (yield from is_authentic(ctx, handover)):
        problem = "the owner has not signed it"
    if problem is not None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("handover", problem),))


def new_epoch(ctx: Context) -> int:
    """Return an epoch for the logs of a guild that this server takes over."""
    return 2 + int.from_bytes(ctx.entropy(EPOCH_BYTES), "big") % (MAX_SAFE_INTEGER - 2)


# --- copying ---------------------------------------------------------------------------------------


def _copy(
    ctx: Context, owners: tuple[str, ...], guild_id: str, copies: tuple[LogCopy, ...], heads: Mapping[str, int]
) -> Operation[int]:
    """Copy some pages of missing events. Return how many events are still missing, as far as is known here.

    `owners`: the guild's owners, newest first. `heads`: the ends of logs according to the newest.
    """
    owner = owners[0]
    here = ctx.service.settings.federation.server_name
    keys = yield from with_own_past(ctx, (yield from keys_for_events(ctx, *owners)))
    left, missing = MAX_COPIED_PAGES, 0
    for copy in copies:
        copied, head = copy.copied, max(copy.head, heads.get(copy.log_id, 0))
        while copied < head and left:
            left -= 1
            page = yield from ask_owner(
                owner,
                "GET",
                f"/federation/v1/logs/{copy.log_id}/history?since={copied}",
                None,
                HistoryPage,
                MAX_PAGE_ANSWER_BYTES,
            )
            lines = yield from _read(page, copy, copied, guild_id, owners, here, keys)
            yield from _keep(owner, guild_id, copy, page.epoch, lines)
            copied += len(lines)
            head = max(head, page.head) if copied < page.head else copied
        if copied >= head and copy.base:
            yield from StartAbsorbing(owner=owner, log_id=copy.log_id)
            missing += head
        elif copied >= head and copied > copy.copied:
            yield from AbsorbHistory(owner=owner, log_id=copy.log_id)
        missing += max(0, head - copied)
    return missing


def _read(
    page: HistoryPage, copy: LogCopy, copied: int, guild_id: str, owners: tuple[str, ...], here: str, keys: EventKeys
) -> Operation[tuple[HistoricEvent, ...]]:
    """Return the events of a page that follows the copy. Raises Refusal 503 if it is not the requested page."""
    if page.first != copied + 1 or not 0 < len(page.events) <= MAX_DELIVERED_EVENTS or page.epoch != copy.epoch:
        raise offline()
    found = []
    for sequence, line in enumerate(page.events, start=page.first):
        if sequence % EVENTS_OF_TURN == 0:
            yield from LetOthersRun()
        place = LogPosition(copy.log_id, page.epoch, sequence)
        event = _checked(line, place, owners, here, keys, of_guild=copy.log_id == guild_id)
        if event is None:
            raise offline()
        found.append(event)
    if len({line.event.event_id for line in found}) < len(found):
        raise offline()
    return tuple(found)


def _checked(
    line: TransferredEvent, place: LogPosition, owners: tuple[str, ...], here: str, keys: EventKeys, *, of_guild: bool
) -> HistoricEvent | None:
    """Return the event if one of the guild's owners has signed it, else None."""
    try:
        fingerprint = decode_unpadded(line.fingerprint)
    except ValueError:
        return None
    if len(fingerprint) > FINGERPRINT_BYTES or (line.nonce is not None and not 0 < len(line.nonce) <= MAX_NONCE_CHARS):
        return None
    for owner in owners:
        try:
            event = read_mirrored(
                line.event.encode(), place, owner, here, keys.at, at_ms=line.at_ms, of_guild=of_guild, any_epoch=True
            )
        except UnverifiedEvent:
            continue
        return HistoricEvent(event, line.nonce, fingerprint)
    return None


def _keep(owner: str, guild_id: str, copy: LogCopy, epoch: int, lines: tuple[HistoricEvent, ...]) -> Operation[None]:
    """Store a page, and append events that no delivery has brought. Raises Refusal 503 if it is refused."""
    later = tuple(line.event for line in lines if line.event.sequence > copy.head)
    if later:
        outcome = yield from MirrorEvents(
            origin=owner, guild_id=guild_id, log_id=copy.log_id, epoch=epoch, events=later
        )
        if outcome.status != "ok" or outcome.ended:
            raise offline()
    refused = yield from StageHistory(owner=owner, log_id=copy.log_id, events=lines)
    if refused is not None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("history", refused),))


# --- lost owners -----------------------------------------------------------------------------------


def succeed(ctx: Context, handover: Handover) -> Operation[str | None]:
    """Take over a guild whose owner is lost, by the statement that it gave in advance. Return a text: the reason why not."""
    policy = ctx.service.settings.federation
    if handover in (yield from ListHandovers(guild_id=handover.guild_id)):
        return None
    ownership = yield from FindOwnership(guild_id=handover.guild_id)
    if ownership is None or ownership.origin is None:
        return "this server does not mirror the guild"
    if handover.kind != SUCCESSION or handover.to != policy.server_name:
        return "the statement does not name this server as the successor"
    problem = handover_problem(handover, ownership, ownership.origin, ctx.wall_ms)
    if problem is not None:
        return f"the statement is not valid: {problem}"
    if not (yield from is_authentic(ctx, handover)):
        return f"the statement is not valid: it is not signed with a known key of {handover.owner}"
    silent_secs = yield from secs_since_contact(ctx, handover.owner)
    if silent_secs < policy.owner_lost_after_secs:
        return (
            f"{handover.owner} was heard of {silent_secs:.0f} s ago; it counts as lost after "
            f"{policy.owner_lost_after_secs} s (federation.owner_lost_after_secs)"
        )
    taken = yield from TakeGuild(handover=handover, epoch=new_epoch(ctx), logs=None, invites=(), now_ms=ctx.wall_ms)
    return None if taken else "another server owns the guild now"


def parse_handover(value: object) -> Handover:
    """Return a statement in the form of `GET /guilds/{guild_id}/succession`. Raises msgspec.ValidationError."""
    return msgspec.convert(value, Handover)

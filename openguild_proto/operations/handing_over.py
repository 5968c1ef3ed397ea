"""Moves a guild of this server to another one (PROTOCOL 16.10)."""

from __future__ import annotations

import msgspec

from openguild_proto.canonical.keys import encode_unpadded
from openguild_proto.effects.base import Operation
from openguild_proto.effects.federation import AskPeer, PeerUnavailable
from openguild_proto.effects.handovers import (
    EndMove,
    FindOwnership,
    HandOver,
    Move,
    NoteMove,
    ReadLogHistory,
    ReadTransferred,
)
from openguild_proto.effects.mirrors import DropMirror
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.federation.handovers import MOVE, MOVE_MS, signed_handover
from openguild_proto.http.message import Response
from openguild_proto.limits import HANDOVER_SECS, MAX_DELIVERED_BYTES, MAX_DELIVERED_EVENTS, MAX_SHORT_ANSWER_BYTES
from openguild_proto.mirror_records import Handover
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Context
from openguild_proto.operations.owners import refusal_of
from openguild_proto.operations.parameters import SINCE
from openguild_proto.operations.route import route
from openguild_proto.operations.servers import require_unrestricted
from openguild_proto.schemas.between_servers import HandoverProgress, HandoverStep, HistoryPage, TransferredEvent

MAX_NOTE_CHARS = 300


@route(
    "GET", "/federation/v1/logs/{log_id}/history", "Get the log of a guild that moves to the calling server", {200: HistoryPage},
    auth="server", client=False, query=(SINCE,), errors=(ErrorCode.NOT_FOUND,),
)  # fmt: skip
def list_history(call: Call[None, None], log_id: str) -> Operation[Response]:
    """Show events of a log of a guild that is being moved to the calling server, oldest first."""
    after = call.query.get("since", 0)
    found = yield from ReadLogHistory(peer=call.server.server, log_id=log_id, after=after, limit=MAX_DELIVERED_EVENTS)
    if found is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    require_unrestricted(call.ctx, call.server, found.guild_id, reads=True)
    events, size = list[TransferredEvent](), 0
    for line in found.lines:
        size += len(line.wire)
        if events and size > MAX_DELIVERED_BYTES:
            break
        fingerprint = encode_unpadded(line.fingerprint) if line.nonce is not None else ""
        events.append(TransferredEvent(line.wire.decode(), line.at_ms, line.nonce, fingerprint))
    first = found.lines[0].sequence if found.lines else after + 1
    return Response.json(HistoryPage(found.epoch, found.head, first, events))


def drive_move(ctx: Context, move: Move) -> Operation[bool]:
    """Do the next step of a move. Idempotent, also after a crash between any two effects. False: the move is done."""
    passed = yield from ReadTransferred(guild_id=move.guild_id)
    if move.handover is None:
        progress = yield from _ask(move, HandoverStep(logs=list(passed.logs)))
        if progress is None or progress.phase != "whole":
            return True
        ownership = yield from FindOwnership(guild_id=move.guild_id)
        if ownership is None:
            return False
        handover = _statement(ctx, move, ownership.term + 1)
        problem = yield from HandOver(handover=handover, sequence=progress.sequence)
        if problem is not None:
            yield from NoteMove(guild_id=move.guild_id, note=problem)
            return True
        move = msgspec.structs.replace(move, handover=handover)
        passed = yield from ReadTransferred(guild_id=move.guild_id)
    step = HandoverStep(move.handover, list(passed.logs), list(passed.invites))
    progress = yield from _ask(move, step)
    if progress is None or progress.phase != "owner":
        return True
    yield from EndMove(guild_id=move.guild_id, done=True)
    ownership = yield from FindOwnership(guild_id=move.guild_id)
    if ownership is not None and not ownership.has_members:
        yield from DropMirror(origin=move.to, guild_id=move.guild_id, now_ms=ctx.wall_ms)
    return False


def _statement(ctx: Context, move: Move, term: int) -> Handover:
    service, now_ms = ctx.service, ctx.wall_ms
    owner = service.settings.federation.server_name
    handover = Handover(MOVE, move.guild_id, owner, move.to, term, now_ms, now_ms + MOVE_MS)
    return signed_handover(handover, service.signers)


def _ask(move: Move, step: HandoverStep) -> Operation[HandoverProgress | None]:
    """Request a step, and record its progress; None: it was not done."""
    target = f"/federation/v1/guilds/{move.guild_id}/handover"
    progress = None
    try:
        answer = yield from AskPeer(
            move.to, "POST", target, msgspec.json.encode(step), HANDOVER_SECS, MAX_SHORT_ANSWER_BYTES
        )
        if answer.status == 200:
            progress = msgspec.json.decode(answer.body, type=HandoverProgress)
            note = f"{progress.phase}, {progress.missing} events are missing" if progress.missing else progress.phase
        else:
            refusal = refusal_of(answer.status, answer.body)
            problems = "; ".join(f"{each.field}: {each.message}" for each in refusal.details)
            note = " ".join(filter(None, (f"{move.to} refuses:", refusal.message, problems)))
    except PeerUnavailable as failure:
        note = str(failure)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        note = f"{move.to} sent an unexpected response"
    if note[:MAX_NOTE_CHARS] != move.note:
        yield from NoteMove(guild_id=move.guild_id, note=note[:MAX_NOTE_CHARS])
    return progress

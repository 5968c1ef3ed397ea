"""Shows servers that mirror a log the event ids that its receipts cover (PROTOCOL 16.9)."""

from __future__ import annotations

from openguild_proto.canonical.keys import encode_unpadded
from openguild_proto.effects.base import Operation
from openguild_proto.effects.deliveries import ChainPoint, FindMirrored, ReadEventIds
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Response
from openguild_proto.limits import MAX_PROOF_EVENTS
from openguild_proto.log.chains import chains_at, fold, signed
from openguild_proto.operations.call import Call
from openguild_proto.operations.parameters import SEQUENCE, parse_sequence
from openguild_proto.operations.route import Parameter, route
from openguild_proto.operations.servers import require_unrestricted
from openguild_proto.records import LogPosition
from openguild_proto.schemas.between_servers import LogProof

FROM = Parameter("from", SEQUENCE, "the first sequence; default: `to`", parse_sequence)
TO = Parameter(
    "to",
    SEQUENCE,
    f"the last sequence, at most {MAX_PROOF_EVENTS} after the first; default: the newest",
    parse_sequence,
)


@route(
    "GET", "/federation/v1/logs/{log_id}/proof", "Get the receipt of a log and the events that it covers", {200: LogProof},
    auth="server", client=False, query=(FROM, TO), errors=(ErrorCode.NOT_FOUND,),
)  # fmt: skip
def prove(call: Call[None, None], log_id: str) -> Operation[Response]:
    """Show the ids of events of a log that the calling server mirrors, and the owner's receipt over them."""
    mirrored = yield from FindMirrored(peer=call.server.server, log_id=log_id)
    if mirrored is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    require_unrestricted(call.ctx, call.server, mirrored.guild_id, reads=True)
    head = mirrored.head
    last = min(call.query.get("to", head.sequence), head.sequence)
    first = call.query.get("from", last)
    if not 1 <= first <= last < first + MAX_PROOF_EVENTS:
        problem = f"must select 1 to {MAX_PROOF_EVENTS} events that exist in the log"
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("from", problem),))
    begin = LogPosition(log_id, head.epoch, first - 1)
    value = (yield from chains_at((begin,))).get(begin)
    if value is None:
        raise Refusal(ErrorCode.NOT_FOUND, "this log has no receipts for sequences that old")
    ids = yield from ReadEventIds(log_id=log_id, after=first - 1, limit=last - first + 1)
    receipt = signed(fold(ChainPoint(begin, value), ids, []), call.ctx.service.signer)
    return Response.json(
        LogProof(
            log_id,
            head.epoch,
            first,
            list(ids),
            encode_unpadded(value),
            encode_unpadded(receipt.point.hash),
            receipt.text,
        )
    )

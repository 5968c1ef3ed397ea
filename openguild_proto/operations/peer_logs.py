"""Pages of logs of this server, for servers that mirror them (PROTOCOL 16.7.6)."""

from __future__ import annotations

from openguild_proto.effects.base import Operation
from openguild_proto.effects.channels import ReadEvents
from openguild_proto.effects.deliveries import FindMirrored
from openguild_proto.effects.handovers import ListHandovers
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Response
from openguild_proto.limits import MAX_DELIVERED_BYTES, MAX_DELIVERED_EVENTS
from openguild_proto.operations.call import Call
from openguild_proto.operations.owner_changes import moved
from openguild_proto.operations.parameters import SEQUENCE, SINCE, page_limit, parse_sequence
from openguild_proto.operations.route import Parameter, route
from openguild_proto.operations.servers import require_unrestricted
from openguild_proto.records import StoredEvent
from openguild_proto.schemas.between_servers import DeliveredEvent, LogPage

BEFORE = Parameter(
    "before", SEQUENCE, "exclusive upper bound: the newest page below it; 400 with since", parse_sequence
)
LIMIT = page_limit(MAX_DELIVERED_EVENTS, MAX_DELIVERED_EVENTS)


@route(
    "GET", "/federation/v1/logs/{log_id}/events", "Read a page of a log, for a server that mirrors it", {200: LogPage},
    auth="server", client=False, query=(SINCE, BEFORE, LIMIT), errors=(ErrorCode.NOT_FOUND, ErrorCode.GUILD_MOVED),
)  # fmt: skip
def list_log_events(call: Call[None, None], log_id: str) -> Operation[Response]:
    """Show a page of the log of a guild that the server mirrors, or of one of its channels, oldest first."""
    since, before = call.query.get("since"), call.query.get("before")
    if since is not None and before is not None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("before", "cannot be combined with since"),))
    mirrored = yield from FindMirrored(peer=call.server.server, log_id=log_id)
    if mirrored is None:
        handovers = yield from ListHandovers(guild_id=log_id)
        if not handovers or handovers[-1].to == call.ctx.service.settings.federation.server_name:
            raise Refusal(ErrorCode.NOT_FOUND)
        raise moved(log_id, handovers[-1].to)
    require_unrestricted(call.ctx, call.server, mirrored.guild_id, reads=True)
    head = mirrored.head
    limit = call.query.get("limit", MAX_DELIVERED_EVENTS)
    events = yield from ReadEvents(log_id=log_id, limit=limit, after=since, before=before)
    page = _bounded(events or (), keep_newest=since is None)
    first = page[0].sequence if page else (since or 0) + 1
    lines = [DeliveredEvent(event.wire.decode(), event.created_at_ms) for event in page]
    return Response.json(LogPage(head.epoch, head.sequence, first, lines))


def _bounded(events: tuple[StoredEvent, ...], *, keep_newest: bool) -> tuple[StoredEvent, ...]:
    size, kept = 0, 0
    for event in reversed(events) if keep_newest else events:
        size += len(event.wire)
        if kept and size > MAX_DELIVERED_BYTES:
            break
        kept += 1
    return events[len(events) - kept :] if keep_newest else events[:kept]

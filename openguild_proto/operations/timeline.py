"""Reading messages as they are now: newest text, reactions, replies, pins, versions (PROTOCOL 7.8)."""

from __future__ import annotations

from openguild_proto.effects.base import Operation
from openguild_proto.effects.messages import FindMessage, ListPins, MessagePage, ReadMessages, ReadVersions
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Response
from openguild_proto.limits import DEFAULT_PAGE_EVENTS, MAX_PAGE_EVENTS
from openguild_proto.operations.call import Call
from openguild_proto.operations.epochs import LOG_EPOCH, LOG_HEAD, epoch_header
from openguild_proto.operations.messages import checked_event_id
from openguild_proto.operations.parameters import CLAMPED, SEQUENCE
from openguild_proto.operations.route import Parameter, in_channel, route
from openguild_proto.policy.permissions import Permission
from openguild_proto.records import ChannelAccess
from openguild_proto.schemas.decode import parse_integer
from openguild_proto.schemas.folded import folded_message, folded_version
from openguild_proto.schemas.messages import Message, TextVersion

BOUNDS = ("after", "before", "around")

MESSAGE_PAGE = (
    Parameter("after", SEQUENCE, "exclusive lower bound", parse_integer),
    Parameter("before", SEQUENCE, "exclusive upper bound: the newest page below it", parse_integer),
    Parameter("around", SEQUENCE, "half of the page up to this place, half behind it", parse_integer),
    Parameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_EVENTS, "default": DEFAULT_PAGE_EVENTS},
        CLAMPED,
        parse_integer,
    ),
)


@route(
    "GET", "/channels/{channel_id}/messages", "Read messages as they are now", {200: list[Message]},
    rights=in_channel(Permission.READ), query=MESSAGE_PAGE, response_headers=(LOG_EPOCH, LOG_HEAD),
)  # fmt: skip
def list_messages(call: Call[None, ChannelAccess], channel_id: str) -> Operation[Response]:
    """A page of messages, oldest first, true of the log up to the head that the answer names: fold what follows it."""
    given = {name: max(call.query[name], 0) for name in BOUNDS if name in call.query}
    if len(given) > 1:
        later = list(given)[1]
        problem = FieldProblem(later, "cannot be combined with another bound")
        raise Refusal(ErrorCode.VALIDATION, details=(problem,))
    limit = min(max(call.query.get("limit", DEFAULT_PAGE_EVENTS), 1), MAX_PAGE_EVENTS)
    page = yield from ReadMessages(channel_id=channel_id, reader_id=call.claims.user_id, limit=limit, **given)
    return _page_response(call, page)


@route(
    "GET", "/channels/{channel_id}/pins", "Read the pinned messages", {200: list[Message]},
    rights=in_channel(Permission.READ), response_headers=(LOG_EPOCH, LOG_HEAD),
)  # fmt: skip
def list_pins(call: Call[None, ChannelAccess], channel_id: str) -> Operation[Response]:
    """The newest pin first."""
    page = yield from ListPins(channel_id=channel_id, reader_id=call.claims.user_id)
    return _page_response(call, page)


@route(
    "GET", "/channels/{channel_id}/messages/{event_id}", "Read one message as it is now", {200: Message},
    rights=in_channel(Permission.READ), response_headers=(LOG_EPOCH, LOG_HEAD),
)  # fmt: skip
def get_message(call: Call[None, ChannelAccess], channel_id: str, event_id: str) -> Operation[Response]:
    """One message, as a page has it."""
    question = FindMessage(
        channel_id=channel_id, reader_id=call.claims.user_id, event_id=checked_event_id("event_id", event_id)
    )
    page = yield from question
    if page is None or not page.messages:
        raise Refusal(ErrorCode.NOT_FOUND)
    (message,) = page.messages
    return Response.json(folded_message(channel_id, message, page.originals), headers=_headers(call, page))


@route(
    "GET", "/channels/{channel_id}/messages/{event_id}/versions", "Read the texts that a message had",
    {200: list[TextVersion]}, rights=in_channel(Permission.READ),
)  # fmt: skip
def list_versions(call: Call[None, ChannelAccess], channel_id: str, event_id: str) -> Operation[Response]:
    """Oldest first; the last one is its text now."""
    versions = yield from ReadVersions(channel_id=channel_id, event_id=checked_event_id("event_id", event_id))
    if versions is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    return Response.json([folded_version(version) for version in versions])


def _page_response(call: Call[None, ChannelAccess], page: MessagePage | None) -> Response:
    if page is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    channel_id = call.access.channel.channel_id
    lines = [folded_message(channel_id, message, page.originals) for message in page.messages]
    return Response.json(lines, headers=_headers(call, page))


def _headers(call: Call[None, ChannelAccess], page: MessagePage) -> tuple[tuple[str, str], ...]:
    return (*epoch_header(call.access.channel), (LOG_HEAD.lower(), str(page.head)))

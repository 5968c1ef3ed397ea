"""Reads messages in their present state: newest text, reactions, replies, pins, versions (PROTOCOL 7.8)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from openguild_proto.effects.base import Operation
from openguild_proto.effects.messages import FindMessage, ListPins, MessagePage, ReadMessages, ReadVersions
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import JSON, Response
from openguild_proto.limits import DEFAULT_PAGE_EVENTS, MAX_CHANNEL_PINS, MAX_PAGE_BYTES, MAX_SEQUENCE
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Limit
from openguild_proto.operations.epochs import LOG_EPOCH, LOG_HEAD, epoch_header, newest_place
from openguild_proto.operations.messages import checked_event_id
from openguild_proto.operations.owners import read_at_owner
from openguild_proto.operations.paging import NEXT_CURSOR, parse_cursor
from openguild_proto.operations.parameters import CURSOR_TIME, EVENT_LIMIT, SEQUENCE, page_limit, parse_sequence
from openguild_proto.operations.route import Parameter, in_channel, route
from openguild_proto.policy.permissions import Permission
from openguild_proto.records import ChannelAccess
from openguild_proto.schemas.folded_messages import folded_messages, folded_version
from openguild_proto.schemas.messages import Message, TextVersion

_encode = msgspec.json.Encoder().encode

_SEQUENCE = re.compile(r"[0-9]{1,19}", re.ASCII)

BOUNDS = ("after", "before", "around")

MESSAGE_PAGE = (
    Parameter("after", SEQUENCE, "exclusive lower bound", parse_sequence),
    Parameter("before", SEQUENCE, "exclusive upper bound: the newest page below it", parse_sequence),
    Parameter("around", SEQUENCE, "half of the page up to this sequence, half after it", parse_sequence),
    EVENT_LIMIT,
)


def _parse_pin(name: str, text: str) -> tuple[int, int]:
    cursor = parse_cursor(text, lambda key: key if _SEQUENCE.fullmatch(key) else None)
    if cursor is None or int(cursor.key) > MAX_SEQUENCE:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem(name, f"must be the {NEXT_CURSOR} of a page"),))
    return cursor.at_ms, int(cursor.key)


_PIN: dict[str, Any] = {"type": "string", "pattern": rf"^{CURSOR_TIME}\.[0-9]{{1,18}}$"}
PIN_PAGE = (
    page_limit(MAX_CHANNEL_PINS, MAX_CHANNEL_PINS),
    Parameter("cursor", _PIN, f"the {NEXT_CURSOR} of the previous page", _parse_pin),
)


@route(
    "GET", "/channels/{channel_id}/messages", "Read messages in their current state", {200: list[Message]},
    rights=in_channel(Permission.READ), query=MESSAGE_PAGE, response_headers=(LOG_EPOCH, LOG_HEAD),
    limits=(Limit.QUERIES, Limit.OWNER_READS),
)  # fmt: skip
def list_messages(call: Call[None, ChannelAccess], channel_id: str) -> Operation[Response]:
    """Read a page of messages, oldest first, of about a MiB at most. It reflects the log up to the head that the response names."""
    given = {name: call.query[name] for name in BOUNDS if name in call.query}
    if len(given) > 1:
        later = list(given)[1]
        problem = FieldProblem(later, "cannot be combined with another bound")
        raise Refusal(ErrorCode.VALIDATION, details=(problem,))
    limit = call.query.get("limit", DEFAULT_PAGE_EVENTS)
    page = yield from ReadMessages(channel_id=channel_id, reader_id=call.claims.user_id, limit=limit, **given)
    if page is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    base = call.access.channel.base_sequence or 0
    older = yield from _read_older(call, _lacks_older(base, page, given, limit))
    if isinstance(older, Response):
        return older
    if older is not None and (
        not page.messages or _begins_below(base, given)
    ):  # it would skip messages, or seem to be the end
        raise older
    lines = _bounded(_lines(call, page), _nearest_first(page, given))
    return _page_response(call, page, lines)


@route(
    "GET", "/channels/{channel_id}/pins", "Read the pinned messages", {200: list[Message]},
    rights=in_channel(Permission.READ), query=PIN_PAGE, response_headers=(LOG_EPOCH, LOG_HEAD, NEXT_CURSOR),
    limits=(Limit.QUERIES, Limit.OWNER_READS),
)  # fmt: skip
def list_pins(call: Call[None, ChannelAccess], channel_id: str) -> Operation[Response]:
    """List the pins, newest first, about a MiB at most; the header leads to the rest."""
    if call.access.channel.origin is not None and call.access.channel.base_sequence:
        return (yield from _read_missing(call))
    limit = call.query.get("limit", MAX_CHANNEL_PINS)
    page = yield from ListPins(
        channel_id=channel_id, reader_id=call.claims.user_id, limit=limit + 1, behind=call.query.get("cursor")
    )
    if page is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    lines = _bounded(_lines(call, page)[:limit], range(min(limit, len(page.messages))))
    if len(lines) == len(page.messages):
        return _page_response(call, page, lines)
    last = page.messages[len(lines) - 1].state
    return _page_response(call, page, lines, (NEXT_CURSOR.lower(), f"{last.pinned_at_ms}.{last.sequence}"))


@route(
    "GET", "/channels/{channel_id}/messages/{event_id}", "Read one message in its current state", {200: Message},
    rights=in_channel(Permission.READ), response_headers=(LOG_EPOCH, LOG_HEAD), limits=(Limit.QUERIES, Limit.OWNER_READS),
)  # fmt: skip
def get_message(call: Call[None, ChannelAccess], channel_id: str, event_id: str) -> Operation[Response]:
    """Show one message, in the form of a page."""
    question = FindMessage(
        channel_id=channel_id, reader_id=call.claims.user_id, event_id=checked_event_id("event_id", event_id)
    )
    page = yield from question
    if page is None or not page.messages:
        return (yield from _read_missing(call))
    (line,) = _lines(call, page)
    return Response(status=200, body=line, headers=_headers(call, page), content_type=JSON)


@route(
    "GET", "/channels/{channel_id}/messages/{event_id}/versions", "List the versions of a message's text",
    {200: list[TextVersion]}, rights=in_channel(Permission.READ), limits=(Limit.QUERIES, Limit.OWNER_READS),
)  # fmt: skip
def list_versions(call: Call[None, ChannelAccess], channel_id: str, event_id: str) -> Operation[Response]:
    """List the versions, oldest first; the last one is the present text."""
    checked = checked_event_id("event_id", event_id)
    versions = yield from ReadVersions(channel_id=channel_id, reader_id=call.claims.user_id, event_id=checked)
    if versions is None:
        return (yield from _read_missing(call))
    return Response.json([folded_version(version) for version in versions])


def _lacks_older(base: int, page: MessagePage, given: Mapping[str, int], limit: int) -> bool:
    """Whether the page may contain messages from before the mirror's `base`, which are not here."""
    if base == 0:
        return False
    return _begins_below(base, given) or ("after" not in given and len(page.messages) < limit)


def _begins_below(base: int, given: Mapping[str, int]) -> bool:
    """Whether the page begins with messages that are not here, whatever follows."""
    return given.get("after", base) < base or given.get("around", base + 1) <= base


def _read_older(call: Call[None, ChannelAccess], lacks: bool) -> Operation[Response | Refusal | None]:
    """Read a page from the owner of a mirrored channel, as `read_at_owner` (PROTOCOL 16.7.4). None: all of the page is here."""
    origin = call.access.channel.origin
    return (yield from read_at_owner(call, origin, newest_place(call.access))) if lacks and origin is not None else None


def _read_missing(call: Call[None, ChannelAccess]) -> Operation[Response]:
    """Read from the owner what is not here. Raises Refusal: 404, or 503 if only the owner could decide."""
    older = yield from _read_older(call, bool(call.access.channel.base_sequence))
    if isinstance(older, Response):
        return older
    raise older or Refusal(ErrorCode.NOT_FOUND)


def _page_response(
    call: Call[None, ChannelAccess], page: MessagePage, lines: Sequence[bytes], *headers: tuple[str, str]
) -> Response:
    body = b"[" + b",".join(lines) + b"]"
    return Response(status=200, body=body, headers=(*_headers(call, page), *headers), content_type=JSON)


def _lines(call: Call[None, ChannelAccess], page: MessagePage) -> list[bytes]:
    server_name = call.ctx.service.settings.server_name
    messages = folded_messages(call.access.channel.channel_id, page, call.claims.user_id, server_name)
    return [_encode(message) for message in messages]


def _nearest_first(page: MessagePage, given: Mapping[str, int]) -> Iterable[int]:
    """Return the places of the page, from where the reader continues."""
    count = len(page.messages)
    if "after" in given:
        return range(count)
    if "around" not in given:
        return reversed(range(count))
    middle = sum(message.state.sequence <= given["around"] for message in page.messages)
    return sorted(range(count), key=lambda place: abs(2 * (place - middle) + 1))


def _bounded(lines: Sequence[bytes], nearest_first: Iterable[int]) -> Sequence[bytes]:
    """Return the part of the page within MAX_PAGE_BYTES, at least one message."""
    size, kept = 0, list[int]()
    for place in nearest_first:
        size += len(lines[place])
        if kept and size > MAX_PAGE_BYTES:
            break
        kept.append(place)
    return lines[min(kept) : max(kept) + 1] if kept else ()


def _headers(call: Call[None, ChannelAccess], page: MessagePage) -> tuple[tuple[str, str], ...]:
    return (*epoch_header(call.access.channel), (LOG_HEAD.lower(), str(page.head)))

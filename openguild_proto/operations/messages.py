"""Messages: post with a nonce, read the log in pages (PROTOCOL 7.4 to 7.6)."""

from __future__ import annotations

import re

import msgspec

from openguild_proto.effects.base import Operation
from openguild_proto.effects.channels import ReadEvents
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Response
from openguild_proto.limits import (
    DEFAULT_PAGE_EVENTS,
    MAX_MESSAGE_BODY_BYTES,
    MAX_MESSAGE_CHARS,
    MAX_PAGE_BYTES,
    MAX_PAGE_EVENTS,
)
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Limit
from openguild_proto.operations.epochs import LOG_EPOCH, check_epoch, epoch_header
from openguild_proto.operations.parameters import CLAMPED, EPOCH, SEQUENCE
from openguild_proto.operations.posting import IDEMPOTENCY_KEY, asked_nonce, fingerprint_of, post_event
from openguild_proto.operations.route import Parameter, in_channel, route
from openguild_proto.policy.permissions import Permission
from openguild_proto.records import ChannelAccess, Reply, StoredEvent
from openguild_proto.schemas.decode import parse_integer
from openguild_proto.schemas.fields import EVENT_ID_PATTERN
from openguild_proto.schemas.messages import ListedEvent, PostedMessage, PostMessage

_EVENT_ID = re.compile(EVENT_ID_PATTERN)

LOG_PAGE = (
    Parameter("since", SEQUENCE, "exclusive lower bound; 400 together with before", parse_integer),
    EPOCH,
    Parameter(
        "before", SEQUENCE, "exclusive upper bound: the newest page below it; 400 together with since", parse_integer
    ),
    Parameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_EVENTS, "default": DEFAULT_PAGE_EVENTS},
        CLAMPED,
        parse_integer,
    ),
)


@route(
    "POST", "/channels/{channel_id}/messages", "Post a message", {200: PostedMessage},
    rights=in_channel(Permission.SEND_MESSAGES, late=True), body=PostMessage, max_body_bytes=MAX_MESSAGE_BODY_BYTES,
    limits=(Limit.MESSAGES,), errors=(ErrorCode.SENDER_MISMATCH, ErrorCode.NONCE_REUSED, ErrorCode.MESSAGE_REDACTED),
    request_headers=(IDEMPOTENCY_KEY,),
)  # fmt: skip
def post_message(call: Call[PostMessage, ChannelAccess], channel_id: str) -> Operation[Response]:
    """Post a message (`post_event`)."""
    claims, body = call.claims, call.body
    text = checked_text(body.content)
    nonce = asked_nonce(call.request, body.nonce)
    sender = (body.sender or "").strip()
    if sender and sender != claims.user_id:
        raise Refusal(ErrorCode.SENDER_MISMATCH)
    yield from call.permit()
    reply_to = None if body.reply_to is None else checked_event_id("reply_to", body.reply_to)
    members = {"content": text} if reply_to is None else {"content": text, "reply_to": reply_to}
    fingerprint = fingerprint_of("message", reply_to, text)
    change = None if reply_to is None else Reply(target=reply_to)
    return (yield from post_event(call, channel_id, "message", members, nonce, fingerprint, change))


def checked_text(content: str) -> str:
    """Return the trimmed text of a message. Raises Refusal 400."""
    text = content.strip()
    if not text:
        raise _content_problem("must be provided", "message_empty")
    if len(text) > MAX_MESSAGE_CHARS:
        raise _content_problem(f"must be at most {MAX_MESSAGE_CHARS} characters long", "message_length")
    if "\0" in text:  # PostgreSQL's jsonb cannot hold it (PROTOCOL 1.3.6)
        raise _content_problem("must not contain NUL", "validation")
    return text


def _content_problem(message: str, reason: str) -> Refusal:
    return Refusal(ErrorCode.VALIDATION, details=(FieldProblem("content", message),), reason=reason)


def checked_event_id(field: str, text: str) -> str:
    """Return the event id. Raises Refusal 400 for what can be none."""
    if _EVENT_ID.fullmatch(text) is None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem(field, "must be an event id"),))
    return text


@route(
    "GET", "/channels/{channel_id}/events", "Read the log", {200: list[ListedEvent]},
    rights=in_channel(Permission.READ), query=LOG_PAGE, response_headers=(LOG_EPOCH,), errors=(ErrorCode.INVALID_SINCE,),
)  # fmt: skip
def list_events(call: Call[None, ChannelAccess], channel_id: str) -> Operation[Response]:
    """Read a page of the log, oldest first, of about a MiB at most."""
    query, channel = call.query, call.access.channel
    since, before = query.get("since"), query.get("before")
    if since is not None and before is not None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("before", "cannot be combined with since"),))
    check_epoch(query.get("epoch"), since, channel)
    events = yield from ReadEvents(
        channel_id=channel_id,
        limit=min(max(query.get("limit", DEFAULT_PAGE_EVENTS), 1), MAX_PAGE_EVENTS),
        after=max(since, 0) if since is not None else None,
        before=max(before, 0) if before is not None else None,
    )
    if events is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    page = _bounded(events, keep_newest=since is None)
    lines = [ListedEvent(event.sequence, event.channel_id, msgspec.Raw(event.wire)) for event in page]
    return Response.json(lines, headers=epoch_header(channel))


def _bounded(events: tuple[StoredEvent, ...], *, keep_newest: bool) -> tuple[StoredEvent, ...]:
    """Return the part of the page within MAX_PAGE_BYTES, at least one event, from the end at which the reader continues."""
    size = count = 0
    for event in reversed(events) if keep_newest else events:
        size += len(event.wire)
        if count and size > MAX_PAGE_BYTES:
            break
        count += 1
    return events[len(events) - count :] if keep_newest else events[:count]

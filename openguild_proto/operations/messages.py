"""Messages: post with a nonce, read the log in pages (PROTOCOL 7.4 to 7.6)."""

from __future__ import annotations

import msgspec
from blake3 import blake3

from openguild_proto.canonical.event import build_message
from openguild_proto.effects.base import Operation
from openguild_proto.effects.channels import AppendEvent, AppendFailure, FindPosted, ReadEvents
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Request, Response
from openguild_proto.limits import (
    DEFAULT_PAGE_EVENTS,
    MAX_MESSAGE_BODY_BYTES,
    MAX_MESSAGE_CHARS,
    MAX_NONCE_CHARS,
    MAX_PAGE_BYTES,
    MAX_PAGE_EVENTS,
)
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Context
from openguild_proto.operations.ids import new_nonce
from openguild_proto.operations.logs import LOG_EPOCH, check_epoch, epoch_header
from openguild_proto.operations.parameters import CLAMPED, EPOCH, SEQUENCE
from openguild_proto.operations.route import Limit, Parameter, in_channel, route
from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.permissions import Permission
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.records import ChannelAccess, StoredEvent
from openguild_proto.schemas.decode import parse_integer
from openguild_proto.schemas.fields import NONCE_PATTERN
from openguild_proto.schemas.messages import ListedEvent, PostedMessage, PostMessage
from openguild_proto.timestamps import from_millis

IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    {"type": "string", "pattern": NONCE_PATTERN},
    "the nonce, where the body has none; both only when they are equal",
)
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
    limits=(Limit.MESSAGES,), errors=(ErrorCode.SENDER_MISMATCH, ErrorCode.NONCE_REUSED),
    request_headers=(IDEMPOTENCY_KEY,),
)  # fmt: skip
def post_message(call: Call[PostMessage, ChannelAccess], channel_id: str) -> Operation[Response]:
    """The event is durable when it is answered.

    A repeat of a nonce answers as the first post did, stores and sends nothing, and does not count as a message: whoever
    did not get the answer may ask again. It counts against limits of its own, which are far wider; beyond them it
    counts as a message.
    """
    ctx, request, claims, body = call.ctx, call.request, call.claims, call.body
    text = _checked_text(body.content)
    nonce = _nonce(request, body)
    sender = (body.sender or "").strip()
    if sender and sender != claims.user_id:
        raise Refusal(ErrorCode.SENDER_MISMATCH)
    yield from call.permit()
    service = ctx.service
    fingerprint = blake3(text.encode()).digest()
    refusal = _limit_messages(ctx, claims.user_id, request.client_address)
    if refusal is not None:
        if nonce is None:
            raise refusal
        if not _admit_repeat(ctx, claims.user_id, request.client_address):
            raise refusal
        posted = yield from FindPosted(channel_id=channel_id, sender_id=claims.user_id, nonce=nonce)
        if posted is None:
            raise refusal
        if posted.fingerprint != fingerprint:
            raise Refusal(ErrorCode.NONCE_REUSED)
        return _acknowledged(posted.event)
    built = build_message(
        server_name=service.settings.server_name,
        channel_id=channel_id,
        sender=claims.user_id,
        username=claims.username or claims.user_id,
        text=text,
        nonce=nonce or new_nonce(ctx),
        origin_ts_ms=ctx.wall_ms,
        signer=service.signer,
    )
    outcome = yield from AppendEvent(
        author=claims.author,
        channel_id=channel_id,
        sender_id=claims.user_id,
        event_id=built.event_id,
        event_type="message",
        canonical=built.canonical,
        wire=built.wire,
        nonce=nonce,
        fingerprint=fingerprint,
        now_ms=ctx.wall_ms,
    )
    if isinstance(outcome, AppendFailure):
        raise Refusal(ErrorCode.NONCE_REUSED if outcome.kind == "nonce_reused" else ErrorCode.NOT_FOUND)
    if outcome.repeated and _admit_repeat(ctx, claims.user_id, request.client_address):
        service.user_messages.refund(claims.user_id)
        service.address_messages.refund(limit_key(request.client_address))
    return _acknowledged(outcome.event)


def _acknowledged(event: StoredEvent) -> Response:
    return Response.json(PostedMessage(event.sequence, event.event_id, from_millis(event.created_at_ms)))


def _checked_text(content: str) -> str:
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


def _nonce(request: Request, body: PostMessage) -> str | None:
    """From the body or the Idempotency-Key header; both only when they agree (PROTOCOL 7.5.1)."""
    keys = request.all_headers("idempotency-key")
    given = {nonce for nonce in (*keys, body.nonce) if nonce is not None}
    if len(given) > 1:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("nonce", "differs from the Idempotency-Key header"),))
    for nonce in given:
        if not 1 <= len(nonce) <= MAX_NONCE_CHARS or not all("!" <= character <= "~" for character in nonce):
            message = f"must be 1 to {MAX_NONCE_CHARS} visible ASCII characters"
            raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("nonce", message),))
        return nonce
    return None


def _limit_messages(ctx: Context, user_id: str, address: str) -> Refusal | None:
    """Charge both windows, or neither and say why: a refused message costs nobody anything."""
    service = ctx.service
    return _charge(
        ctx,
        (service.address_messages, limit_key(address), ErrorCode.IP_RATE_LIMIT),
        (service.user_messages, user_id, ErrorCode.MESSAGE_RATE_LIMIT),
    )


def _admit_repeat(ctx: Context, user_id: str, address: str) -> bool:
    """One more post that was, or may have been, stored before. Where there is no room for it, nothing is charged."""
    service = ctx.service
    refusal = _charge(
        ctx,
        (service.address_repeats, limit_key(address), ErrorCode.IP_RATE_LIMIT),
        (service.user_repeats, user_id, ErrorCode.MESSAGE_RATE_LIMIT),
    )
    return refusal is None


def _charge(ctx: Context, *checks: tuple[SlidingWindow, str, ErrorCode]) -> Refusal | None:
    for window, key, code in checks:
        wait = window.peek(key, ctx.now)
        if wait is not None:
            return Refusal(code, retry_after_secs=int(wait) + 1)
    for window, key, _ in checks:
        window.hit(key, ctx.now)
    return None


@route(
    "GET", "/channels/{channel_id}/events", "Read the log", {200: list[ListedEvent]},
    rights=in_channel(Permission.READ), query=LOG_PAGE, answer_headers=(LOG_EPOCH,), errors=(ErrorCode.INVALID_SINCE,),
)  # fmt: skip
def list_events(call: Call[None, ChannelAccess], channel_id: str) -> Operation[Response]:
    """A page of the log, oldest first, of about a MiB at most."""
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
    """MAX_PAGE_BYTES of them from the end where the reader goes on, at least one, without a hole."""
    size = count = 0
    for event in reversed(events) if keep_newest else events:
        size += len(event.wire)
        if count and size > MAX_PAGE_BYTES:
            break
        count += 1
    return events[len(events) - count :] if keep_newest else events[:count]

"""Messages: post with a nonce, read the log in pages (PROTOCOL 7.4 to 7.6)."""

from __future__ import annotations

import msgspec
from blake3 import blake3

from openguild_proto.canonical.event import build_message
from openguild_proto.effects import AppendEvent, AppendFailure, FindPosted, Operation, ReadEvents
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Request, Response
from openguild_proto.limits import (
    DEFAULT_PAGE_EVENTS,
    MAX_MESSAGE_CHARS,
    MAX_NONCE_CHARS,
    MAX_PAGE_BYTES,
    MAX_PAGE_EVENTS,
)
from openguild_proto.operations.auth import authenticate
from openguild_proto.operations.channels import channel_access, check_epoch, epoch_header, find_channel
from openguild_proto.operations.context import Context
from openguild_proto.operations.ids import new_nonce
from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.permissions import Permission
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.records import StoredEvent
from openguild_proto.schemas.decode import decode_body, integer_parameter, parse_query
from openguild_proto.schemas.messages import ListedEvent, PostedMessage, PostMessage
from openguild_proto.timestamps import from_millis


def post_message(ctx: Context, request: Request, channel_id: str) -> Operation[Response]:
    """POST /channels/{channel_id}/messages -> 200 `{sequence, event_id, created_at}`: the event is durable.

    A repeat of a nonce answers as the first post did, stores and sends nothing, and does not count as a message: whoever
    did not get the answer may ask again. It counts against limits of its own, which are far wider; beyond them it
    counts as a message.
    """
    claims = yield from authenticate(ctx, request, limits_itself=True)
    parse_query(request)
    body = decode_body(request, PostMessage)
    text = _checked_text(body.content)
    nonce = _nonce(request, body)
    sender = (body.sender or "").strip()
    if sender and sender != claims.user_id:
        raise Refusal(ErrorCode.SENDER_MISMATCH)
    yield from find_channel(channel_id, claims.user_id, Permission.SEND_MESSAGES)
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


def list_events(ctx: Context, request: Request, channel_id: str) -> Operation[Response]:
    """GET /channels/{channel_id}/events?since=&epoch=&before=&limit=: a page of the log, oldest first,
    of about a MiB at most."""
    _, access = yield from channel_access(ctx, request, channel_id, Permission.READ)
    query = parse_query(request, "since", "epoch", "before", "limit")
    since, before = integer_parameter(query, "since"), integer_parameter(query, "before")
    if since is not None and before is not None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("before", "cannot be combined with since"),))
    check_epoch(query, since, access.channel)
    limit = integer_parameter(query, "limit")
    events = yield from ReadEvents(
        channel_id=channel_id,
        limit=DEFAULT_PAGE_EVENTS if limit is None else min(max(limit, 1), MAX_PAGE_EVENTS),
        after=max(since, 0) if since is not None else None,
        before=max(before, 0) if before is not None else None,
    )
    if events is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    page = _bounded(events, keep_newest=since is None)
    lines = [ListedEvent(event.sequence, event.channel_id, msgspec.Raw(event.wire)) for event in page]
    return Response.json(lines, headers=epoch_header(access.channel))


def _bounded(events: tuple[StoredEvent, ...], *, keep_newest: bool) -> tuple[StoredEvent, ...]:
    """MAX_PAGE_BYTES of them from the end where the reader goes on, at least one, without a hole."""
    size = count = 0
    for event in reversed(events) if keep_newest else events:
        size += len(event.wire)
        if count and size > MAX_PAGE_BYTES:
            break
        count += 1
    return events[len(events) - count :] if keep_newest else events[:count]

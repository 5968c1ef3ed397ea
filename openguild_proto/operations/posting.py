"""Posts an event of any type to a channel: once per nonce, within the message limits (PROTOCOL 7.4, 7.5)."""

from __future__ import annotations

from typing import Any

import msgspec
from blake3 import blake3

from openguild_proto.canonical.event import build_event
from openguild_proto.effects.base import Operation
from openguild_proto.effects.channels import Appended, AppendEvent, AppendFailure, FindPosted, Unchanged
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.http.message import Response
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Context, Limit
from openguild_proto.operations.ids import new_nonce
from openguild_proto.operations.owners import propose
from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.channels import KIND_BYTES, is_same_content
from openguild_proto.policy.mentions import allowed_mentions
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.records import NOBODY, Change, ChannelAccess, Mentions, Reply, StoredEvent
from openguild_proto.schemas.between_servers import ProposalAnswer
from openguild_proto.schemas.events import MentionedParties
from openguild_proto.schemas.messages import AllowedMentions, ChangedMessage, PostedMessage
from openguild_proto.timestamps import from_millis


def post_event(
    call: Call[Any, ChannelAccess],
    channel_id: str,
    event_type: str,
    members: dict[str, Any],
    nonce: str | None,
    fingerprint: bytes,
    change: Change | None = None,
    mentions: Mentions = NOBODY,
    allowed: AllowedMentions | None = None,
) -> Operation[Response]:
    """Store an event, and respond when it is durable. If the caller has not checked the permission, the transaction that stores
    the event decides about it.

    `members`: the event's content. The author and a nonce are added, so that two equal contents are two events. So are those
    `mentions` that the author's permissions and `allowed` admit (None: all of them).
    `fingerprint`: 32 bytes, a hash of the values that a repeat must share with the first post.

    If the caller has not checked the permission, the transaction that stores the event does.
    `members`: the event's content. Adds the author, a nonce, so that equal contents are different events, and those of
    `mentions` that the author's rights and `allowed` permit (None: all of them).
    `fingerprint`: 32 bytes, a hash of the values that a repeat must share with the first post.
    In a mirrored channel the owner server decides (PROTOCOL 16.6).

    A repeat of a nonce gets the response of the first post; nothing is stored or sent. So a client may retry after a lost
    response. Repeats have higher limits of their own, beyond which they count as messages.
    """
    ctx, request, claims, service = call.ctx, call.request, call.claims, call.ctx.service
    refusal = _limit_messages(ctx, claims.user_id, request.client_address)
    if refusal is not None:
        if nonce is None:
            raise refusal
        if not _admit_repeat(ctx, claims.user_id, request.client_address):
            raise refusal
        if not call.decided:
            yield from call.permit()
        posted = yield from FindPosted(channel_id=channel_id, sender_id=claims.user_id, nonce=nonce)
        if posted is None:
            raise refusal
        if not is_same_content(fingerprint, posted.fingerprint):
            raise Refusal(ErrorCode.NONCE_REUSED)
        return _acknowledged(posted.event, change)
    if not call.decided and (mentions != NOBODY or channel_id in service.mirrored):
        yield from call.permit()  # else storing decides about the rights
    if mentions != NOBODY:
        asked = allowed or AllowedMentions()
        mentions = allowed_mentions(
            mentions, role=call.role, users=asked.users, roles=asked.roles, everyone=asked.everyone
        )
    if mentions != NOBODY:
        told = MentionedParties(mentions.users, mentions.roles, mentions.everyone)
        members = {**members, "mentions": msgspec.to_builtins(told)}
    own_nonce = nonce or new_nonce(ctx)
    built = build_event(
        server_name=service.settings.server_name,
        room_id=channel_id,
        event_type=event_type,
        sender=claims.user_id,
        content={
            "author": {"id": claims.user_id, "username": claims.username or claims.user_id},
            **members,
            "nonce": own_nonce,
        },
        origin_ts_ms=ctx.wall_ms,
        signer=service.signer,
    )
    append = AppendEvent(
        author=claims.author,
        channel_id=channel_id,
        sender_id=claims.user_id,
        event_id=built.event_id,
        event_type=event_type,
        wire=built.wire,
        nonce=nonce,
        fingerprint=fingerprint,
        now_ms=ctx.wall_ms,
        change=change,
        mentions=mentions,
    )
    outcome = (yield from _append_undecided(call, append)) if not call.decided else None
    if outcome is None:
        owner = call.access.channel.origin
        service.mirrored.note(channel_id, mirrored=owner is not None)
        if owner is not None:
            answer = yield from propose(call, owner, built, own_nonce)
            return _decided(answer, change)
        outcome = yield from append
    if isinstance(outcome, Unchanged):
        return Response.json(ChangedMessage(outcome.state.event_id))
    if isinstance(outcome, AppendFailure):
        raise Refusal(ErrorCode.NONCE_REUSED if outcome.kind == "nonce_reused" else ErrorCode.NOT_FOUND)
    if outcome.repeated and _admit_repeat(ctx, claims.user_id, request.client_address):
        _refund(ctx, claims.user_id, request.client_address)
    return _acknowledged(outcome.event, change)


def _append_undecided(
    call: Call[Any, ChannelAccess], append: AppendEvent
) -> Operation[Appended | Unchanged | AppendFailure | None]:
    """Store an event; the storing transaction checks the author's permissions. None: another server owns the guild, and the
    permissions are known now. Raises Refusal.
    """
    try:
        outcome = yield from append
    except Refusal as refusal:
        if refusal.code is ErrorCode.GUILD_OFFLINE:
            yield from call.permit()
            return None
        raise
    call.decided = True
    return outcome


def fingerprint_of(event_type: str, target: str | None, *said: str) -> bytes:
    """Return 32 bytes that a repeat shares with the first request: KIND_BYTES for its kind and target, then the rest."""
    kind = blake3("\0".join((event_type, target or "")).encode()).digest(KIND_BYTES)
    return kind + blake3("\0".join(said).encode()).digest(32 - KIND_BYTES)


def _acknowledged(event: StoredEvent, change: Change | None) -> Response:
    created_at = from_millis(event.created_at_ms)
    if change is None or isinstance(change, Reply):
        return Response.json(PostedMessage(event.sequence, event.event_id, created_at))
    return Response.json(ChangedMessage(change.target, event.sequence, event.event_id, created_at))


def _decided(answer: ProposalAnswer, change: Change | None) -> Response:
    if answer.sequence is None or answer.created_at_ms is None:
        return Response.json(ChangedMessage(answer.event_id))
    stored = StoredEvent("", answer.sequence, answer.event_id, b"", answer.created_at_ms)
    return _acknowledged(stored, change)


def _limit_messages(ctx: Context, user_id: str, address: str) -> Refusal | None:
    """Charge both windows; or none, and return the refusal."""
    service = ctx.service
    return _charge(
        ctx,
        (service.address_messages, limit_key(address), ErrorCode.IP_RATE_LIMIT),
        (service.user_messages, user_id, ErrorCode.MESSAGE_RATE_LIMIT),
    )


def _refund(ctx: Context, user_id: str, address: str) -> None:
    """Undo what `_limit_messages` charged."""
    ctx.service.user_messages.refund(user_id)
    ctx.service.address_messages.refund(limit_key(address))


def _admit_repeat(ctx: Context, user_id: str, address: str) -> bool:
    """Charge the windows of repeats; or none, and return False."""
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
            return Limit.MESSAGES.refusal(wait, code)
    for window, key, _ in checks:
        window.hit(key, ctx.now)
    return None

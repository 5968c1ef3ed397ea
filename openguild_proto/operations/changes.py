"""Changes of a message: edit, redaction, reaction, pin. Each is an event of its own in the log (PROTOCOL 6.6)."""

from __future__ import annotations

from typing import Any

from openguild_proto.effects.base import Operation
from openguild_proto.errors import ErrorCode
from openguild_proto.http.message import Response
from openguild_proto.limits import MAX_MESSAGE_BODY_BYTES
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Limit
from openguild_proto.operations.idempotency import IDEMPOTENCY_KEY, asked_nonce
from openguild_proto.operations.messages import checked_event_id, checked_text
from openguild_proto.operations.parameters import EMOJI, REASON
from openguild_proto.operations.posting import fingerprint_of, post_event
from openguild_proto.operations.route import in_channel, route
from openguild_proto.policy.emoji import checked_emoji
from openguild_proto.policy.permissions import Permission
from openguild_proto.records import Change, ChannelAccess, ClearReactions, Edit, Pin, React, Redact
from openguild_proto.schemas.messages import ChangedMessage, EditMessage, ReactToMessage

ERRORS = (ErrorCode.NONCE_REUSED, ErrorCode.MESSAGE_REDACTED, ErrorCode.LIMIT_REACHED)


@route(
    "PATCH", "/channels/{channel_id}/events/{event_id}", "Edit a message", {200: ChangedMessage},
    rights=in_channel(Permission.SEND_MESSAGES, late=True), body=EditMessage, max_body_bytes=MAX_MESSAGE_BODY_BYTES,
    limits=(Limit.MESSAGES,), errors=ERRORS, request_headers=(IDEMPOTENCY_KEY,),
)  # fmt: skip
def edit_message(call: Call[EditMessage, ChannelAccess], channel_id: str, event_id: str) -> Operation[Response]:
    """Change the text of the caller's own message; earlier texts stay readable as versions."""
    text = checked_text(call.body.content)
    change = Edit(target=checked_event_id("event_id", event_id), text=text)
    return (yield from _change(call, channel_id, "message.edited", change, {"content": text}, call.body.nonce))


@route(
    "DELETE", "/channels/{channel_id}/events/{event_id}", "Redact a message", {200: ChangedMessage},
    rights=in_channel(Permission.READ, late=True), query=(REASON,),
    limits=(Limit.MESSAGES,), errors=ERRORS, request_headers=(IDEMPOTENCY_KEY,),
)  # fmt: skip
def redact_message(call: Call[None, ChannelAccess], channel_id: str, event_id: str) -> Operation[Response]:
    """Erase the texts of the caller's own message, or as a moderator of any message. Its place in the log stays."""
    reason = call.query.get("reason")
    change = Redact(target=checked_event_id("event_id", event_id), reason=reason)
    members = {} if reason is None else {"reason": reason}
    return (yield from _change(call, channel_id, "message.redacted", change, members, None))


@route(
    "POST", "/channels/{channel_id}/events/{event_id}/reactions", "React to a message", {200: ChangedMessage},
    rights=in_channel(Permission.SEND_MESSAGES, late=True), body=ReactToMessage,
    limits=(Limit.MESSAGES,), errors=ERRORS, request_headers=(IDEMPOTENCY_KEY,),
)  # fmt: skip
def react_to_message(call: Call[ReactToMessage, ChannelAccess], channel_id: str, event_id: str) -> Operation[Response]:
    """Add a reaction of the caller to a message, or remove it."""
    emoji, adds = checked_emoji(call.body.emoji), call.body.action == "add"
    change = React(target=checked_event_id("event_id", event_id), emoji=emoji, adds=adds)
    event_type = "reaction.added" if adds else "reaction.removed"
    return (yield from _change(call, channel_id, event_type, change, {"emoji": emoji}, call.body.nonce))


@route(
    "DELETE", "/channels/{channel_id}/events/{event_id}/reactions", "Clear reactions", {200: ChangedMessage},
    rights=in_channel(Permission.MANAGE_MESSAGES, late=True), query=(EMOJI, REASON),
    limits=(Limit.MESSAGES,), errors=ERRORS, request_headers=(IDEMPOTENCY_KEY,),
)  # fmt: skip
def clear_reactions(call: Call[None, ChannelAccess], channel_id: str, event_id: str) -> Operation[Response]:
    """As a moderator, remove the reactions of all users to a message: those with one emoji, or all."""
    emoji, reason = call.query.get("emoji"), call.query.get("reason")
    change = ClearReactions(target=checked_event_id("event_id", event_id), emoji=emoji, reason=reason)
    members = {name: text for name, text in (("emoji", emoji), ("reason", reason)) if text is not None}
    said = (emoji or "", reason or "")
    return (yield from _change(call, channel_id, "reactions.cleared", change, members, None, said))


@route(
    "PUT", "/channels/{channel_id}/pins/{event_id}", "Pin a message", {200: ChangedMessage},
    rights=in_channel(Permission.MANAGE_MESSAGES, late=True),
    limits=(Limit.MESSAGES,), errors=ERRORS, request_headers=(IDEMPOTENCY_KEY,),
)  # fmt: skip
def pin_message(call: Call[None, ChannelAccess], channel_id: str, event_id: str) -> Operation[Response]:
    """Add a message to the channel's list of pins."""
    change = Pin(target=checked_event_id("event_id", event_id), pins=True)
    return (yield from _change(call, channel_id, "message.pinned", change, {}, None))


@route(
    "DELETE", "/channels/{channel_id}/pins/{event_id}", "Unpin a message", {200: ChangedMessage},
    rights=in_channel(Permission.MANAGE_MESSAGES, late=True),
    limits=(Limit.MESSAGES,), errors=ERRORS, request_headers=(IDEMPOTENCY_KEY,),
)  # fmt: skip
def unpin_message(call: Call[None, ChannelAccess], channel_id: str, event_id: str) -> Operation[Response]:
    """Remove a message from the channel's list of pins."""
    change = Pin(target=checked_event_id("event_id", event_id), pins=False)
    return (yield from _change(call, channel_id, "message.unpinned", change, {}, None))


def _change(
    call: Call[Any, ChannelAccess],
    channel_id: str,
    event_type: str,
    change: Change,
    members: dict[str, Any],
    nonce_in_body: str | None,
    said: tuple[str, ...] | None = None,
) -> Operation[Response]:
    """`said`: what a repeat must share besides type and target, as in `effect_of_event`; None: the values of `members`."""
    nonce = asked_nonce(call.request, nonce_in_body)
    fingerprint = fingerprint_of(event_type, change.target, *(members.values() if said is None else said))
    content = {"target": change.target, **members}
    return (yield from post_event(call, channel_id, event_type, content, nonce, fingerprint, change))

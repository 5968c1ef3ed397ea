"""Decisions on changes of a message, shared by both stores: who may make a change, and its effect."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.limits import MAX_CHANNEL_PINS, MAX_MESSAGE_EMOJI, MAX_MESSAGE_VERSIONS
from openguild_proto.policy.permissions import ROLES, Permission, allows
from openguild_proto.policy.reactions import add_use, clear_emoji, has_emoji, take_use_back, uses_of
from openguild_proto.records import (
    NO_REACTIONS,
    Change,
    ClearReactions,
    Edit,
    Mentions,
    MessageState,
    Pin,
    React,
    Redact,
    Reply,
)


class Asker(NamedTuple):
    """The author of a change, and other facts that the decision needs."""

    user_id: str
    role: str  # effective role in the channel
    has_reacted: bool = False  # with the emoji of a React
    pins: int = 0  # number of messages pinned to the channel


def permission_to_append(change: Change | None, mentions: Mentions) -> Permission:
    """Return the permission that this event needs in the channel. `decide_change` requires more for others' messages."""
    if mentions.of_many:
        return Permission.MENTION_MANY
    match change:
        case Redact():
            return Permission.READ
        case Pin() | ClearReactions():
            return Permission.MANAGE_MESSAGES
    return Permission.SEND_MESSAGES


def decide_change(
    message: MessageState | None, change: Change, asker: Asker, *, event_id: str, now_ms: int
) -> MessageState | None:
    """Return the message after the change `event_id`, or None if it already has that state; then nothing is stored.

    Raises Refusal: 404 for no such message; 403 if it is not the asker's (400 if only the reason is missing);
    409 `message_redacted` or `limit_reached`.
    """
    if message is None:
        raise Refusal(ErrorCode.NOT_FOUND, "there is no such message in this channel")
    _require_right(message, change, asker)
    if message.redacted_by is not None:
        if isinstance(change, Redact) or (isinstance(change, Pin) and not change.pins):
            return None
        raise Refusal(ErrorCode.MESSAGE_REDACTED)
    match change:
        case Reply():
            return replace(message, replies=message.replies + 1)
        case Edit(text=text):
            if message.versions >= MAX_MESSAGE_VERSIONS:
                raise Refusal(ErrorCode.LIMIT_REACHED, f"a message has {MAX_MESSAGE_VERSIONS} versions at most")
            return replace(message, edited_text=text, edited_at_ms=now_ms, versions=message.versions + 1)
        case Redact(reason=reason):
            if reason is None and message.author_id != asker.user_id:
                problem = FieldProblem("reason", "must be provided: it is not your message")
                raise Refusal(ErrorCode.VALIDATION, details=(problem,))
            return replace(
                message,
                edited_text=None,
                edited_at_ms=None,
                redacted_by=event_id,
                pinned_at_ms=None,
                reactions=NO_REACTIONS,
                is_crowded=False,
            )
        case React():
            return _react(message, change, asker)
        case ClearReactions(emoji=emoji):
            return _clear(message, emoji)
        case Pin(pins=pins):
            return _pin(message, asker, now_ms if pins else None)
    raise TypeError(f"no change: {type(change).__name__}")


def apply_decided(
    message: MessageState | None, change: Change, sender_id: str, *, has_reacted: bool, event_id: str, now_ms: int
) -> MessageState | None:
    """Return the message after a change that another server has decided, or None if it is not here or does not change.

    A change that would be refused here comes from a server with other rules. It stays in the log without an effect.
    """
    if message is None:
        return None
    asker = Asker(sender_id, ROLES[0], has_reacted)
    try:
        return decide_change(message, change, asker, event_id=event_id, now_ms=now_ms)
    except Refusal:
        return None


def _require_right(message: MessageState, change: Change, asker: Asker) -> None:
    if isinstance(change, Edit | Redact) and message.author_id != asker.user_id:
        if isinstance(change, Edit):
            raise Refusal(ErrorCode.FORBIDDEN, "only its author may edit a message")
        if not allows(asker.role, Permission.MANAGE_MESSAGES):
            raise Refusal(ErrorCode.FORBIDDEN, "only its author and moderators may delete a message")


def _react(message: MessageState, change: React, asker: Asker) -> MessageState | None:
    if change.adds is asker.has_reacted:
        return None
    before, emoji = message.reactions, change.emoji
    if change.adds and uses_of(before) >= MAX_MESSAGE_EMOJI and not has_emoji(before, emoji):
        raise Refusal(ErrorCode.LIMIT_REACHED, f"a message has {MAX_MESSAGE_EMOJI} different emoji at most")
    count = add_use if change.adds else take_use_back
    reactions, is_crowded = count(before, emoji, asker.user_id, is_crowded=message.is_crowded)
    return replace(message, reactions=reactions, is_crowded=is_crowded)


def _clear(message: MessageState, emoji: str | None) -> MessageState | None:
    before = message.reactions
    if before == NO_REACTIONS or (emoji is not None and not has_emoji(before, emoji)):
        return None
    reactions, is_crowded = clear_emoji(before, emoji) if emoji is not None else (NO_REACTIONS, False)
    return replace(message, reactions=reactions, is_crowded=is_crowded)


def _pin(message: MessageState, asker: Asker, pinned_at_ms: int | None) -> MessageState | None:
    if (message.pinned_at_ms is None) is (pinned_at_ms is None):
        return None
    if pinned_at_ms is not None and asker.pins >= MAX_CHANNEL_PINS:
        raise Refusal(ErrorCode.LIMIT_REACHED, f"a channel has {MAX_CHANNEL_PINS} pins at most")
    return replace(message, pinned_at_ms=pinned_at_ms)


def page_around(limit: int) -> tuple[int, int]:
    """Return how many messages of a page are up to the sequence that it is around, and how many after it."""
    return limit - limit // 2, limit // 2

"""What an event of a channel's log does, by its content: of another server's log, or proposed (PROTOCOL 16.6, 16.8)."""

from __future__ import annotations

from typing import NamedTuple

from openguild_proto.canonical.event import CanonicalEvent
from openguild_proto.records import NOBODY, Change, Edit, Mentions, Pin, React, Redact, Reply
from openguild_proto.schemas.events import (
    AnyContent,
    EditContent,
    MessageContent,
    PinContent,
    ReactionContent,
    RedactedContent,
    RedactionContent,
    UnknownContent,
)


class Said(NamedTuple):
    """What an event of a channel's log does. `said`: what a repeat of it must share, beside its type and its target."""

    change: Change | None
    mentions: Mentions = NOBODY
    said: tuple[str, ...] = ()
    redacted_by: str | None = None


def what_is_said(event: CanonicalEvent, content: AnyContent | UnknownContent) -> Said:
    """Return what the event does. One that is not understood does nothing."""
    match content:
        case MessageContent():
            reply = Reply(content.reply_to) if content.reply_to is not None else None
            named = content.mentions
            mentions = NOBODY if named is None else Mentions(named.users, named.roles, named.everyone)
            return Said(reply, mentions, (content.content,))
        case EditContent():
            return Said(Edit(content.target, content.content), said=(content.content,))
        case RedactionContent():
            said = () if content.reason is None else (content.reason,)
            return Said(Redact(content.target, content.reason), said=said)
        case ReactionContent():
            adds = event.event_type == "reaction.added"
            return Said(React(content.target, content.emoji, adds), said=(content.emoji,))
        case PinContent():
            return Said(Pin(content.target, event.event_type == "message.pinned"))
        case RedactedContent():
            answered = content.reply_to if event.event_type == "message" else None
            reply = Reply(answered) if answered is not None else None
            return Said(reply, redacted_by=content.redacted_by)
    return Said(None)

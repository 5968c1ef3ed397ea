"""Reads the effect of an event from its content, for proposed events and those of another server's log (PROTOCOL 16.6, 16.8)."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import NamedTuple

from msgspec.structs import replace

from openguild_proto.canonical.event import CanonicalEvent
from openguild_proto.canonical.redaction import redacted_wire
from openguild_proto.mirror_records import GuildBan, MirroredEvent
from openguild_proto.records import NOBODY, Change, ClearReactions, Edit, Mentions, Pin, React, Redact, Reply
from openguild_proto.schemas.decode import parse_uuid
from openguild_proto.schemas.events import (
    AnyContent,
    EditContent,
    MessageContent,
    PinContent,
    ReactionContent,
    ReactionsClearedContent,
    RedactedContent,
    RedactionContent,
    UnknownContent,
)
from openguild_proto.schemas.log_contents import MemberBannedContent


class EventEffect(NamedTuple):
    """The effect of an event in a channel's log. `said`: the values that a repeat must share, besides type and target."""

    change: Change | None
    mentions: Mentions = NOBODY
    said: tuple[str, ...] = ()
    redacted_by: str | None = None


def effect_of_event(event: CanonicalEvent, content: AnyContent | UnknownContent) -> EventEffect:
    """Return the effect of the event. Unknown content has none."""
    match content:
        case MessageContent():
            reply = Reply(content.reply_to) if content.reply_to is not None else None
            named = content.mentions
            mentions = NOBODY if named is None else Mentions(named.users, named.roles, named.everyone)
            return EventEffect(reply, mentions, (content.content,))
        case EditContent():
            return EventEffect(Edit(content.target, content.content), said=(content.content,))
        case RedactionContent():
            said = () if content.reason is None else (content.reason,)
            return EventEffect(Redact(content.target, content.reason), said=said)
        case ReactionContent():
            adds = event.event_type == "reaction.added"
            return EventEffect(React(content.target, content.emoji, adds), said=(content.emoji,))
        case ReactionsClearedContent(target=target, emoji=emoji, reason=reason):
            return EventEffect(ClearReactions(target, emoji, reason), said=(emoji or "", reason or ""))
        case PinContent():
            return EventEffect(Pin(content.target, event.event_type == "message.pinned"))
        case RedactedContent():
            answered = content.reply_to if event.event_type == "message" else None
            reply = Reply(answered) if answered is not None else None
            return EventEffect(reply, redacted_by=content.redacted_by)
    return EventEffect(None)


def as_kept(events: Iterable[MirroredEvent], own: Container[str]) -> list[MirroredEvent] | None:
    """Return the events of a mirrored log as they are stored.

    Return None if an event without this server's signature names a user of this server, `own`, as its sender: the owner has
    forged it. If its origin is a third server, which may have given a user the same id, the owner is not to blame: the event is
    stored without its content, and only a redaction keeps its effect (PROTOCOL 16.8.2).
    """
    kept = []
    for event in events:
        if event.by_owner and event.sender_id in own:
            if not event.of_third:
                return None
            event = _without_content(event)
        kept.append(event)
    return kept


def _without_content(event: MirroredEvent) -> MirroredEvent:
    return replace(
        event,
        wire=redacted_wire(event.wire, event.event_id),
        change=event.change if isinstance(event.change, Redact) else None,
        mentions=NOBODY,
        redacted_by=event.redacted_by or event.event_id,
    )


def ban_told(event: MirroredEvent, content: MemberBannedContent) -> GuildBan | None:
    """Return the ban in an event of a guild's log. None: the sender is not a user id, which no honest owner sends."""
    if parse_uuid(event.sender_id) != event.sender_id:
        return None
    return GuildBan(content.user_id, event.sender_id, event.at_ms, content.username, content.reason)

"""Messages and their changes as effects, with wires in the form that a server writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from openguild_proto.canonical.event import BuiltEvent, build_event
from openguild_proto.effects.channels import Appended, AppendEvent
from openguild_proto.effects.messages import FindMessage, FoundMessage
from openguild_proto.policy.reactions import read_reactions, shown_to
from openguild_proto.records import (
    Author,
    Change,
    ClearReactions,
    Edit,
    MessageState,
    Pin,
    React,
    Redact,
    Reply,
    StoredEvent,
)
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, append, new_id

EVENT_TYPES = {Edit: "message.edited", Redact: "message.redacted", ClearReactions: "reactions.cleared"}


def post(
    channel_id: str,
    user_id: str,
    text: str,
    *,
    reply_to: str | None = None,
    nonce: str | None = None,
    mentions: Sequence[str] = (),
) -> AppendEvent:
    """Return a message by an account of this server."""
    members: dict[str, Any] = {} if reply_to is None else {"reply_to": reply_to}
    if mentions:
        members["mentions"] = {"users": list(mentions)}
    event = _built(channel_id, user_id, "message", {"content": text, **members})
    effect = append(channel_id, user_id, text, nonce, Author(user_id))
    change = Reply(reply_to) if reply_to is not None else None
    return replace(effect, event_id=event.event_id, wire=event.wire, change=change)


def changing(
    channel_id: str, user_id: str, change: Change, *, nonce: str | None = None, now_ms: int = NOW
) -> AppendEvent:
    """Return an event that changes a message."""
    text = change.text if isinstance(change, Edit) else str(change)
    members = {"content": text} if isinstance(change, Edit) else {}
    if isinstance(change, React | ClearReactions) and change.emoji is not None:
        members["emoji"] = change.emoji
    event = _built(channel_id, user_id, _type_of(change), {"target": change.target, **members})
    effect = append(channel_id, user_id, text, nonce, Author(user_id))
    return replace(
        effect, event_id=event.event_id, event_type=_type_of(change), wire=event.wire, change=change, now_ms=now_ms
    )


def new_event_id() -> str:
    """Return an event id that no stored event has."""
    return _built(new_id(), new_id(), "message", {}).event_id


def _built(channel_id: str, user_id: str, event_type: str, content: dict[str, Any]) -> BuiltEvent:
    return build_event(
        server_name="here.test", room_id=channel_id, event_type=event_type, sender=user_id,
        content={"author": {"id": user_id, "username": user_id}, **content, "nonce": new_id()}, origin_ts_ms=NOW, signer=None,
    )  # fmt: skip


def _type_of(change: Change) -> str:
    match change:
        case React(adds=adds):
            return "reaction.added" if adds else "reaction.removed"
        case Pin(pins=pins):
            return "message.pinned" if pins else "message.unpinned"
    return EVENT_TYPES[type(change)]


async def stored(storage: Storage, effect: AppendEvent) -> StoredEvent:
    """Perform an append and return its event, which must be new."""
    outcome = await storage.perform(effect)
    assert isinstance(outcome, Appended), outcome
    assert not outcome.repeated
    return outcome.event


def counts(state: MessageState) -> tuple[tuple[str, int], ...]:
    """Return each emoji with the number of users who reacted with it."""
    return tuple((use.emoji, use.count) for use in read_reactions(state.reactions))


def reacted(message: FoundMessage, reader_id: str) -> tuple[str, ...]:
    """Return the emoji that a page marks as the reader's own."""
    shown = shown_to(reader_id, message.state.reactions, message.crowds)
    return tuple(use.emoji for use in read_reactions(shown) if use.me)


def reactors(message: FoundMessage, reader_id: str = "") -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return each emoji with the users that a page shows for it, in its order."""
    shown = shown_to(reader_id, message.state.reactions, message.crowds)
    return tuple((use.emoji, tuple(use.reactors)) for use in read_reactions(shown))


async def found(storage: Storage, channel_id: str, event_id: str, reader_id: str = "") -> FoundMessage:
    page = await storage.perform(FindMessage(channel_id=channel_id, reader_id=reader_id, event_id=event_id))
    assert page is not None
    (message,) = page.messages
    return message

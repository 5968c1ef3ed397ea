"""Messages and their changes as effects, with wires of the shape that a server writes."""

from __future__ import annotations

from msgspec.structs import replace

from openguild_proto.canonical.encode import canonical_json
from openguild_proto.effects.channels import Appended, AppendEvent
from openguild_proto.effects.messages import FindMessage, FoundMessage
from openguild_proto.records import Author, Change, Edit, Pin, React, Redact, Reply, StoredEvent
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, append, new_event_id

EVENT_TYPES = {Edit: "message.edited", Redact: "message.redacted"}


def post(
    channel_id: str, user_id: str, text: str, *, reply_to: str | None = None, nonce: str | None = None
) -> AppendEvent:
    """A message of an account of this server."""
    content = {"content": text} if reply_to is None else {"content": text, "reply_to": reply_to}
    effect = append(channel_id, user_id, text, nonce, Author(user_id))
    change = Reply(reply_to) if reply_to is not None else None
    return replace(effect, wire=wire_of(content), change=change)


def changing(
    channel_id: str, user_id: str, change: Change, *, nonce: str | None = None, now_ms: int = NOW
) -> AppendEvent:
    """An event that changes a message."""
    text = change.text if isinstance(change, Edit) else str(change)
    content = {"target": change.target, "content": text} if isinstance(change, Edit) else {"target": change.target}
    return AppendEvent(
        author=Author(user_id),
        channel_id=channel_id,
        sender_id=user_id,
        event_id=new_event_id(),
        event_type=_type_of(change),
        wire=wire_of(content),
        nonce=nonce,
        fingerprint=text.encode().ljust(32, b"\0")[:32],
        now_ms=now_ms,
        change=change,
    )


def wire_of(content: dict[str, str]) -> bytes:
    return canonical_json({"auth_events": [], "content": content, "prev_events": [], "schema_version": 1})


def _type_of(change: Change) -> str:
    match change:
        case React(adds=adds):
            return "reaction.added" if adds else "reaction.removed"
        case Pin(pins=pins):
            return "message.pinned" if pins else "message.unpinned"
    return EVENT_TYPES[type(change)]


async def stored(storage: Storage, effect: AppendEvent) -> StoredEvent:
    """Perform it; it must have been stored now."""
    outcome = await storage.perform(effect)
    assert isinstance(outcome, Appended), outcome
    assert not outcome.repeated
    return outcome.event


async def found(storage: Storage, channel_id: str, event_id: str, reader_id: str = "") -> FoundMessage:
    page = await storage.perform(FindMessage(channel_id=channel_id, reader_id=reader_id, event_id=event_id))
    assert page is not None
    (message,) = page.messages
    return message

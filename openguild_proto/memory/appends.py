"""Appends to a channel's log in memory, and applies the change of an earlier message."""

from __future__ import annotations

from msgspec.structs import replace

from openguild_proto.canonical.redaction import redacted_wire
from openguild_proto.effects.channels import Appended, AppendEvent, AppendFailure, Unchanged
from openguild_proto.effects.performs import performs
from openguild_proto.errors import LocalProtocolError
from openguild_proto.memory.authority import effective_role_in, require_in_channel
from openguild_proto.memory.mentions import note_mentions
from openguild_proto.memory.state import Channel, State
from openguild_proto.policy.channels import KIND_BYTES, is_same_post
from openguild_proto.policy.messages import Asker, apply_decided, decide_change, permission_to_append
from openguild_proto.policy.permissions import require_owned
from openguild_proto.records import NOBODY, Author, ClearReactions, Edit, MessageState, React, Redact, StoredEvent


@performs(AppendEvent)
def append_event(state: State, effect: AppendEvent) -> Appended | Unchanged | AppendFailure:
    channel = state.channels.get(effect.channel_id)
    if channel is None:
        return AppendFailure(kind="no_channel")
    if effect.author is not None:
        needed = permission_to_append(effect.change, effect.mentions)
        require_in_channel(state, effect.author, effect.channel_id, needed)
        require_owned(channel.record.origin)
    repeated = _find_repeated(state, channel, effect)
    if repeated is not None:
        return repeated
    before = after = None
    if effect.change is not None and effect.author is None:
        after = _decided_elsewhere(channel, state, effect)
    elif effect.change is not None:
        before, after = _decide(state, channel, effect)
        if after is None:
            return Unchanged(state=before)
    event = StoredEvent(
        log_id=effect.channel_id,
        sequence=len(channel.events) + 1,
        event_id=effect.event_id,
        wire=effect.wire,
        created_at_ms=effect.now_ms,
    )
    channel.events.append(event)
    is_message = effect.event_type == "message"
    channel.senders.append(effect.sender_id if is_message else "")
    if is_message:
        channel.messages[event.sequence] = MessageState(
            event.sequence, event.event_id, effect.sender_id, event.created_at_ms, redacted_by=effect.redacted_by
        )
    state.event_places[effect.event_id] = (effect.channel_id, event.sequence)
    if effect.nonce is not None:
        channel.nonces[effect.sender_id, effect.nonce] = (effect.fingerprint, event.sequence)
    if after is not None:
        _apply(channel, effect, event, after)
    elif isinstance(effect.change, Edit):
        channel.strays.setdefault(effect.change.target, []).append(event.sequence)
    if isinstance(effect.change, Redact):
        for sequence in channel.strays.pop(effect.change.target, ()):
            _redact(channel, sequence, effect.event_id)
    if effect.mentions != NOBODY:
        note_mentions(state, channel, event, effect.sender_id, effect.mentions)
    return Appended(event=event)


def _find_repeated(state: State, channel: Channel, effect: AppendEvent) -> Appended | AppendFailure | None:
    if effect.nonce is not None and (effect.sender_id, effect.nonce) in channel.nonces:
        fingerprint, sequence = channel.nonces[effect.sender_id, effect.nonce]
        stored = channel.events[sequence - 1]
        if not is_same_post(
            fingerprint=effect.fingerprint,
            stored_fingerprint=fingerprint,
            event_id=effect.event_id,
            stored_event_id=stored.event_id,
        ):
            return AppendFailure(kind="nonce_reused")
        return Appended(event=stored, repeated=True)
    if effect.event_id in state.event_places:
        channel_id, sequence = state.event_places[effect.event_id]
        if channel_id != effect.channel_id:
            raise LocalProtocolError("an event id belongs to one channel")
        return Appended(event=channel.events[sequence - 1], repeated=True)
    return None


def _decide(state: State, channel: Channel, effect: AppendEvent) -> tuple[MessageState, MessageState | None]:
    """Return the message before and after the change; None after it: nothing changes."""
    change, author = effect.change, effect.author
    if change is None or author is None:
        raise LocalProtocolError("a change has an author")
    channel_id, sequence = state.event_places.get(change.target, ("", 0))
    message = channel.messages.get(sequence) if channel_id == effect.channel_id else None
    asker = _asker(state, channel, author, sequence, change.emoji if isinstance(change, React) else "")
    after = decide_change(message, change, asker, event_id=effect.event_id, now_ms=effect.now_ms)
    if message is None:
        raise LocalProtocolError("a change of no message was admitted")
    return message, after


def _decided_elsewhere(channel: Channel, state: State, effect: AppendEvent) -> MessageState | None:
    change = effect.change
    if change is None:
        return None
    channel_id, sequence = state.event_places.get(change.target, ("", 0))
    emoji = change.emoji if isinstance(change, React) else ""
    return apply_decided(
        channel.messages.get(sequence) if channel_id == effect.channel_id else None,
        change,
        effect.sender_id,
        has_reacted=effect.sender_id in channel.reactions.get((sequence, emoji), ()),
        event_id=effect.event_id,
        now_ms=effect.now_ms,
    )


def _asker(state: State, channel: Channel, author: Author, sequence: int, emoji: str) -> Asker:
    return Asker(
        author.user_id,
        effective_role_in(state, channel, author.user_id),
        has_reacted=author.user_id in channel.reactions.get((sequence, emoji), ()),
        pins=sum(message.pinned_at_ms is not None for message in channel.messages.values()),
    )


def _apply(channel: Channel, effect: AppendEvent, event: StoredEvent, message: MessageState) -> None:
    channel.messages[message.sequence] = message
    match effect.change:
        case Edit():
            channel.edits.setdefault(message.sequence, []).append(event.sequence)
        case React(emoji=emoji, adds=True):
            channel.reactions.setdefault((message.sequence, emoji), {})[effect.sender_id] = None
        case React(emoji=emoji):
            del channel.reactions[message.sequence, emoji][effect.sender_id]
        case ClearReactions(emoji=emoji):
            _drop_reactions(channel, message.sequence, emoji)
        case Redact():
            channel.mentions.pop(message.sequence, None)
            _drop_reactions(channel, message.sequence)
            for sequence in (message.sequence, *channel.edits.get(message.sequence, ())):
                _redact(channel, sequence, effect.event_id)


def _drop_reactions(channel: Channel, message: int, emoji: str | None = None) -> None:
    for key in [key for key in channel.reactions if key[0] == message and emoji in {None, key[1]}]:
        del channel.reactions[key]


def _redact(channel: Channel, sequence: int, redacted_by: str) -> None:
    event = channel.events[sequence - 1]
    channel.events[sequence - 1] = replace(event, wire=redacted_wire(event.wire, redacted_by))
    for key, (fingerprint, place) in channel.nonces.items():
        if place == sequence:
            channel.nonces[key] = (fingerprint[:KIND_BYTES], sequence)

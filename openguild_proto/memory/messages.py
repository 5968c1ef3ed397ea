"""Messages in their current state, in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from openguild_proto.canonical.replies import replied_to
from openguild_proto.effects.messages import (
    FindMessage,
    FoundMessage,
    ListPins,
    MessagePage,
    MessageVersion,
    ReadMessages,
    ReadVersions,
)
from openguild_proto.effects.performs import performs
from openguild_proto.errors import LocalProtocolError
from openguild_proto.limits import MAX_SHOWN_REACTORS
from openguild_proto.memory.state import Channel, State
from openguild_proto.policy.messages import page_around
from openguild_proto.policy.reactions import Crowd, EmojiUse, read_reactions
from openguild_proto.records import MessageState


@performs(ReadMessages)
def read_messages(state: State, effect: ReadMessages) -> MessagePage | None:
    channel = state.channels.get(effect.channel_id)
    if channel is None:
        return None
    limit = max(0, effect.limit)
    match effect.after, effect.before, effect.around:
        case None, None, None:
            return _page(state, channel, effect.reader_id, _last(channel.messages, limit))
        case int(after), None, None:
            return _page(state, channel, effect.reader_id, _first(channel.messages, limit, after))
        case None, int(before), None:
            earlier = [sequence for sequence in channel.messages if sequence < before]
            return _page(state, channel, effect.reader_id, _last(earlier, limit))
        case None, None, int(around):
            until, behind = page_around(limit)
            upto = [sequence for sequence in channel.messages if sequence <= around]
            found = [*_last(upto, until), *_first(channel.messages, behind, around)]
            return _page(state, channel, effect.reader_id, found)
    raise LocalProtocolError("a page has one bound: after, before or around")


@performs(FindMessage)
def find_message(state: State, effect: FindMessage) -> MessagePage | None:
    channel, message = _find(state, effect.channel_id, effect.event_id)
    return _page(state, channel, effect.reader_id, [message.sequence]) if channel is not None and message else None


@performs(ListPins)
def list_pins(state: State, effect: ListPins) -> MessagePage | None:
    channel = state.channels.get(effect.channel_id)
    if channel is None:
        return None
    pins = sorted(
        (message.pinned_at_ms, sequence)
        for sequence, message in channel.messages.items()
        if message.pinned_at_ms is not None
    )
    behind = [pin for pin in reversed(pins) if effect.behind is None or pin < effect.behind]
    return _page(state, channel, effect.reader_id, [sequence for _, sequence in behind[: effect.limit]])


@performs(ReadVersions)
def read_versions(state: State, effect: ReadVersions) -> tuple[MessageVersion, ...] | None:
    channel, message = _find(state, effect.channel_id, effect.event_id)
    if channel is None or message is None:
        return None
    events = [channel.events[sequence - 1] for sequence in (message.sequence, *channel.edits.get(message.sequence, ()))]
    return tuple(MessageVersion(event.sequence, event.event_id, event.wire, event.created_at_ms) for event in events)


def _find(state: State, channel_id: str, event_id: str) -> tuple[Channel | None, MessageState | None]:
    channel = state.channels.get(channel_id)
    of_channel, sequence = state.event_places.get(event_id, ("", 0))
    if channel is None or of_channel != channel_id:
        return None, None
    return channel, channel.messages.get(sequence)


def _page(state: State, channel: Channel, reader_id: str, sequences: Iterable[int]) -> MessagePage:
    messages = tuple(_found(channel, reader_id, sequence) for sequence in sequences)
    originals = {}
    for message in messages:
        target = replied_to(message.wire)
        if target is not None:
            _, original = _find(state, channel.record.channel_id, target)
            if original is not None:
                originals[target] = _found(channel, reader_id, original.sequence)
    return MessagePage(messages, originals, head=len(channel.events))


def _found(channel: Channel, reader_id: str, sequence: int) -> FoundMessage:
    message = channel.messages[sequence]
    crowds = tuple(
        _crowd(use, channel.reactions[sequence, use.emoji], reader_id)
        for use in read_reactions(message.reactions)
        if use.count > len(use.reactors)
    )
    return FoundMessage(message, channel.events[sequence - 1].wire, crowds)


def _crowd(use: EmojiUse, users: Collection[str], reader_id: str) -> Crowd:
    is_short = len(use.reactors) < MAX_SHOWN_REACTORS
    return Crowd(use.emoji, reader_id in users, tuple(sorted(users)[:MAX_SHOWN_REACTORS]) if is_short else None)


def _first(sequences: Iterable[int], limit: int, after: int) -> list[int]:
    return sorted(sequence for sequence in sequences if sequence > after)[:limit]


def _last(sequences: Iterable[int], limit: int) -> list[int]:
    return sorted(sequences)[-limit:] if limit else []

"""The messages of a channel in a client, from the events of its log (PROTOCOL 7.8.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from openguild_proto.canonical.event import CanonicalEvent
from openguild_proto.schemas.events import (
    EditContent,
    MessageContent,
    PinContent,
    ReactionContent,
    ReactionsClearedContent,
    RedactedContent,
    RedactionContent,
    parse_content,
    parse_event,
)

T = TypeVar("T")


class SeenMessage(msgspec.Struct):
    """A message in a view. `reactions`: the users of each emoji, in the order of first use."""

    event_id: str
    sequence: int
    author_id: str
    text: str | None  # None: redacted
    versions: int = 1
    edited: bool = False
    pinned: bool = False
    redacted_by: str | None = None
    reply_to: str | None = None
    replies: int = 0
    reactions: dict[str, set[str]] = {}


class ChannelView:
    """The messages of a channel by event id, in the order of the log. Apply the log from its beginning, in order and once."""

    def __init__(self) -> None:
        self.messages: dict[str, SeenMessage] = {}
        self.head = 0

    def apply(self, sequence: int, wire: bytes | str) -> None:
        """Apply the next event. Ignores repeats. Raises ValueError for a gap."""
        if sequence <= self.head:
            return
        if sequence != self.head + 1:
            raise ValueError(f"event {self.head + 1} is missing")
        self.head = sequence
        event = parse_event(wire)
        match parse_content(event):
            case MessageContent(content=text, reply_to=reply_to):
                self._post(sequence, event, text, reply_to)
            case RedactedContent(redacted_by=redacted_by, reply_to=reply_to) if event.event_type == "message":
                self._post(sequence, event, None, reply_to)
                self.messages[event.event_id].redacted_by = redacted_by
            case EditContent(target=target, content=text) if (message := self._whole(target)) is not None:
                message.text, message.versions, message.edited = text, message.versions + 1, True
            case EditContent(target=target) | RedactedContent(target=str(target)) if target in self.messages:
                if event.event_type == "message.edited":  # the message arrived redacted, its edit may not have
                    self.messages[target].versions += 1
            case RedactionContent(target=target) if (message := self._whole(target)) is not None:
                self._redact(message, event.event_id)
            case ReactionContent(target=target, emoji=emoji) if (message := self._whole(target)) is not None:
                _react(message, emoji, event.sender, adds=event.event_type == "reaction.added")
            case ReactionsClearedContent(target=target, emoji=emoji) if (message := self._whole(target)) is not None:
                message.reactions = without(message.reactions, emoji)
            case PinContent(target=target) if (message := self._whole(target)) is not None:
                message.pinned = event.event_type == "message.pinned"

    def pinned(self) -> Iterable[SeenMessage]:
        """Return the pinned messages, in the order of the log."""
        return (message for message in self.messages.values() if message.pinned)

    def _post(self, sequence: int, event: CanonicalEvent, text: str | None, reply_to: str | None) -> None:
        self.messages[event.event_id] = SeenMessage(event.event_id, sequence, event.sender, text, reply_to=reply_to)
        if reply_to is not None and (answered := self.messages.get(reply_to)) is not None:
            answered.replies += 1

    def _whole(self, event_id: str) -> SeenMessage | None:
        """Return the message unless it is redacted. Earlier changes of a redacted message have no effect."""
        message = self.messages.get(event_id)
        return message if message is not None and message.redacted_by is None else None

    def _redact(self, message: SeenMessage, redacted_by: str) -> None:
        message.text, message.redacted_by, message.edited, message.pinned = None, redacted_by, False, False
        message.reactions = {}


def without(reactions: dict[str, T], emoji: str | None) -> dict[str, T]:
    """Return the reactions without this emoji, or no reactions for None."""
    return {used: reaction for used, reaction in reactions.items() if emoji not in {None, used}}


def _react(message: SeenMessage, emoji: str, user_id: str, *, adds: bool) -> None:
    users = message.reactions.setdefault(emoji, set())
    if adds:
        users.add(user_id)
    else:
        users.discard(user_id)
    if not users:
        del message.reactions[emoji]

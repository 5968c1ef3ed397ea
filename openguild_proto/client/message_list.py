"""The newest messages of a channel as a client shows them: a folded page with later events applied (PROTOCOL 7.8.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from openguild_proto.canonical.event import CanonicalEvent
from openguild_proto.client.view import without
from openguild_proto.limits import MAX_LISTED_MESSAGES
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
from openguild_proto.schemas.messages import Message, Reaction

ChangeContent: TypeAlias = EditContent | RedactionContent | ReactionContent | ReactionsClearedContent | PinContent


class ShownReaction(msgspec.Struct):
    """One emoji on a message. `me`: the user is among those who used it."""

    count: int
    me: bool


class ShownMessage(msgspec.Struct):
    """A message in its present state. `text` None: redacted. `author`: the name, "" if it is not known."""

    event_id: str
    sequence: int
    author_id: str
    author: str
    text: str | None
    edited: bool = False
    pinned: bool = False
    reply_to: str | None = None
    replies: int = 0
    reactions: dict[str, ShownReaction] = {}


_reactions = msgspec.json.Decoder(list[Reaction])


class MessageList:
    """`messages` by event id, oldest first, MAX_LISTED_MESSAGES at most.

    `head`: the log's sequence that they reflect. `user_id`: the user of the view.
    """

    def __init__(self, user_id: str, page: Iterable[Message], head: int) -> None:
        self.messages: dict[str, ShownMessage] = {line.event_id: _shown(line) for line in page}
        self.head = head
        self._user_id = user_id

    def apply(self, sequence: int, wire: bytes | str) -> ShownMessage | None:
        """Apply an event of the log. Return the new or changed message; None: no shown message changed."""
        if sequence <= self.head:
            return None
        self.head = sequence
        event = parse_event(wire)
        content = parse_content(event)
        if isinstance(content, ChangeContent):
            return self._change(event, content)
        match content:
            case MessageContent(author=author, content=text, reply_to=reply_to):
                return self._post(event, sequence, author.username, text, reply_to)
            case RedactedContent(reply_to=reply_to) if event.event_type == "message":  # it came when it was taken back
                return self._post(event, sequence, "", None, reply_to)
        return None

    def _post(
        self, event: CanonicalEvent, sequence: int, author: str, text: str | None, reply_to: str | None
    ) -> ShownMessage:
        if reply_to in self.messages:
            self.messages[reply_to].replies += 1
        message = ShownMessage(event.event_id, sequence, event.sender, author, text, reply_to=reply_to)
        self.messages[event.event_id] = message
        if len(self.messages) > MAX_LISTED_MESSAGES:
            del self.messages[next(iter(self.messages))]
        return message

    def _change(self, event: CanonicalEvent, content: ChangeContent) -> ShownMessage | None:
        message = self.messages.get(content.target)
        if message is None or message.text is None:
            return None
        match content:
            case EditContent(content=text):
                message.text, message.edited = text, True
            case RedactionContent():
                message.text, message.edited, message.pinned, message.reactions = None, False, False, {}
            case ReactionContent(emoji=emoji):
                self._react(message, emoji, event.sender, 1 if event.event_type == "reaction.added" else -1)
            case ReactionsClearedContent(emoji=emoji):
                message.reactions = without(message.reactions, emoji)
            case PinContent():
                message.pinned = event.event_type == "message.pinned"
        return message

    def _react(self, message: ShownMessage, emoji: str, user_id: str, step: int) -> None:
        reaction = message.reactions.setdefault(emoji, ShownReaction(0, False))
        reaction.count += step
        if user_id == self._user_id:
            reaction.me = step > 0
        if reaction.count <= 0:
            del message.reactions[emoji]


def _shown(line: Message) -> ShownMessage:
    reactions = _reactions.decode(line.reactions) if isinstance(line.reactions, msgspec.Raw) else []
    return ShownMessage(
        line.event_id,
        line.sequence,
        line.author.id,
        line.author.username or "",
        line.content,
        edited=line.edited_at is not None,
        pinned=line.pinned_at is not None,
        reply_to=line.reply_to,
        replies=line.reply_count,
        reactions={reaction.emoji: ShownReaction(reaction.count, reaction.me) for reaction in reactions},
    )

"""Events of a client, as types: `@client.on(MessagePosted)`, or `match` on the events of `client.gateway()`.

An event of a log has its place (`log`, `epoch`, `sequence`), the signed `event`, and its `content`. Events about a message
have methods that act on it.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Generic, TypeVar

import msgspec

from openguild_proto.canonical.event import CanonicalEvent
from openguild_proto.gateway.client_events import Delivered
from openguild_proto.gateway.client_logs import Place
from openguild_proto.gateway.frames import GoneCode, Ready
from openguild_proto.hints import PresenceStatus
from openguild_proto.schemas.events import (
    AnyContent,
    EditContent,
    EventAuthor,
    MessageContent,
    PinContent,
    ReactionContent,
    ReactionsClearedContent,
    RedactedContent,
    RedactionContent,
    UnknownContent,
)
from openguild_proto.schemas.messages import ChangedMessage, ReadPosition
from openguild_runtime.client.messages import Messages, Posted

C = TypeVar("C", bound=AnyContent | UnknownContent)


class Event:
    """Base of all events of a client."""

    __slots__ = ()


class Connected(Event, msgspec.Struct, frozen=True):
    """The gateway is authenticated, for the first time or again: `ready` has the user and their guilds."""

    ready: Ready


class Interrupted(Event, msgspec.Struct, frozen=True):
    """The connection ended; the client reconnects in `retry_secs`, or when it has a new token (None). No event is missed."""

    reason: str
    retry_secs: float | None


class LogFollowed(Event, msgspec.Struct, frozen=True):
    """A log is followed after the sequence `after`. `recovered` False: discard your copy of it, and read it again up to `after`."""

    log: str
    epoch: int
    after: int
    head: int
    recovered: bool

    @property
    def place(self) -> Place:
        """The place after which its events come."""
        return Place(self.epoch, self.after)


class LogGone(Event, msgspec.Struct, frozen=True):
    """A log is no longer followed: the user may no longer read it, or it was deleted."""

    log: str
    code: GoneCode


class UserTyping(Event, msgspec.Struct, frozen=True):
    """A user is typing in a channel. `preview`: their text, if they show it."""

    channel_id: str
    user_id: str
    preview: str | None = None


class PresenceChanged(Event, msgspec.Struct, frozen=True):
    """The presence of a user who shares a guild changed."""

    user_id: str
    status: PresenceStatus


class LogEvent(Event, Generic[C]):
    """The next event of a log, in order and once. `client`: the client that its methods use."""

    __slots__ = ("client", "content", "epoch", "event", "log", "sequence", "wire")

    def __init__(self, client: Messages, delivered: Delivered, event: CanonicalEvent, content: C) -> None:
        self.client = client
        self.log = delivered.log
        self.epoch = delivered.epoch
        self.sequence = delivered.sequence
        self.wire = delivered.wire  # the event in JSON, as it was signed
        self.event = event
        self.content = content

    @property
    def place(self) -> Place:
        """The place of the event in its log."""
        return Place(self.epoch, self.sequence)

    @property
    def log_id(self) -> str:
        """The id of the channel, guild or user whose log it is."""
        return self.log.partition(":")[2]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.log} {self.sequence}: {self.content!r})"


class UnknownEvent(LogEvent[UnknownContent]):
    """An event of a newer server: its type is in `event.event_type`."""


class TextTakenBack(LogEvent[RedactedContent]):
    """A message, or an edit of one, that was redacted before this client read it."""


Said = TypeVar(
    "Said",
    bound=MessageContent | EditContent | RedactionContent | ReactionContent | ReactionsClearedContent | PinContent,
)


class MessageEvent(LogEvent[Said]):
    """An event about the message `message_id` of the channel `channel_id`. `author`: of the event."""

    __slots__ = ()

    @property
    def channel_id(self) -> str:
        return self.log_id

    @property
    def message_id(self) -> str:
        content = self.content
        return self.event.event_id if isinstance(content, MessageContent) else content.target

    @property
    def author(self) -> EventAuthor:
        return self.content.author

    @property
    def is_own(self) -> bool:
        """Whether the client's own user did this."""
        return self.author.id == self.client.user_id

    async def reply(self, text: str, *, nonce: str | None = None) -> Posted:
        """Reply to the message. The same text as a reply to this event is stored once, also by a later run of the program.

        `nonce`: of the post, if replies differ in more than their texts. Raises ApiError, OutcomeUnknown.
        """
        nonce = self._nonce("reply", text) if nonce is None else nonce
        return await self.client.post(self.channel_id, text, reply_to=self.message_id, nonce=nonce)

    def _nonce(self, *parts: str) -> str:
        """Return the nonce for a command that reacts to this event, the same each time."""
        said = "\0".join((self.event.event_id, *parts))
        return sha256(said.encode("utf-8", "surrogatepass")).hexdigest()  # text that cannot be sent is refused later

    async def react(self, emoji: str) -> ChangedMessage:
        """Add a reaction to the message. Raises ApiError, OutcomeUnknown."""
        return await self.client.react(self.channel_id, self.message_id, emoji)

    async def unreact(self, emoji: str) -> ChangedMessage:
        """Remove the user's own reaction. Raises ApiError, OutcomeUnknown."""
        return await self.client.unreact(self.channel_id, self.message_id, emoji)

    async def redact(self, reason: str | None = None) -> ChangedMessage:
        """Redact the message: the user's own, or as a moderator. Raises ApiError, OutcomeUnknown."""
        return await self.client.redact(self.channel_id, self.message_id, reason)

    async def clear_reactions(self, emoji: str | None = None, reason: str | None = None) -> ChangedMessage:
        """As a moderator, remove the reactions of all users to the message. Raises ApiError, OutcomeUnknown."""
        return await self.client.clear_reactions(self.channel_id, self.message_id, emoji, reason)

    def note_read(self) -> None:
        """Note that the user has read the channel up to this event; the server is told soon."""
        self.client.note_read(self.channel_id, self.sequence)

    async def mark_read(self) -> ReadPosition:
        """Move the read position to this event, and wait for the server's answer. Raises ApiError, OutcomeUnknown."""
        return await self.client.mark_read(self.channel_id, self.sequence)


class MessagePosted(MessageEvent[MessageContent]):
    """A message was posted."""

    __slots__ = ("_edits",)

    def __init__(self, client: Messages, delivered: Delivered, event: CanonicalEvent, content: MessageContent) -> None:
        super().__init__(client, delivered, event, content)
        self._edits = 0  # made with this object

    @property
    def text(self) -> str:
        return self.content.content

    async def edit(self, text: str, *, nonce: str | None = None) -> ChangedMessage:
        """Change the text of the user's own message. Raises ApiError, OutcomeUnknown.

        The first, second, ... edit of this event to the same text is stored once, also by a later run of the program.
        """
        nonce = self._nonce("edit", str(self._edits), text) if nonce is None else nonce
        changed = await self.client.edit(self.channel_id, self.message_id, text, nonce=nonce)
        self._edits += 1
        return changed


class MessageEdited(MessageEvent[EditContent]):
    """A message was edited."""

    __slots__ = ()

    @property
    def text(self) -> str:
        return self.content.content


class MessageRedacted(MessageEvent[RedactionContent]):
    """A message was redacted: discard its text."""


class ReactionAdded(MessageEvent[ReactionContent]):
    """A user reacted to a message: `content.emoji`."""


class ReactionRemoved(MessageEvent[ReactionContent]):
    """A user removed their reaction."""


class ReactionsCleared(MessageEvent[ReactionsClearedContent]):
    """A moderator removed the reactions with `content.emoji`, or all (None)."""


class MessagePinned(MessageEvent[PinContent]):
    """A message was pinned."""


class MessageUnpinned(MessageEvent[PinContent]):
    """A message was unpinned."""

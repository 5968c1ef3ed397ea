"""The types of a client's events, for `@client.on(MessagePosted)` or for `match` on the events of `client.gateway()`.

An event of a log has its position (`log`, `epoch`, `sequence`), the signed `event`, and its `content`. Events about a message
have methods that act on the message.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Generic, TypeVar

import msgspec

from openguild_proto.canonical.event import CanonicalEvent
from openguild_proto.gateway.client_events import Delivered
from openguild_proto.gateway.client_logs import ResumePosition
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
    """The gateway is authenticated, for the first time or again. `ready` has the user and their guilds."""

    ready: Ready


class Interrupted(Event, msgspec.Struct, frozen=True):
    """The connection ended. The client reconnects after `retry_secs`, or with a new token (None). No events are missed."""

    reason: str
    retry_secs: float | None


class LogFollowed(Event, msgspec.Struct, frozen=True):
    """The client follows a log after the sequence `after`. If not `recovered`, events up to `after` may be missed: read them."""

    log: str
    epoch: int
    after: int
    head: int
    recovered: bool

    @property
    def place(self) -> ResumePosition:
        """The position after which its events follow."""
        return ResumePosition(self.epoch, self.after)


class LogGone(Event, msgspec.Struct, frozen=True):
    """The client no longer follows a log: it was deleted, or the user may no longer read it."""

    log: str
    code: GoneCode


class UserTyping(Event, msgspec.Struct, frozen=True):
    """A user is typing in a channel. `preview` is their text, if they share it."""

    channel_id: str
    user_id: str
    preview: str | None = None


class PresenceChanged(Event, msgspec.Struct, frozen=True):
    """The presence of a user who shares a guild changed."""

    user_id: str
    status: PresenceStatus


class LogEvent(Event, Generic[C]):
    """The next event of a log, in order and exactly once. Its methods use `client`."""

    __slots__ = ("client", "content", "epoch", "event", "log", "sequence", "wire")

    def __init__(self, client: Messages, delivered: Delivered, event: CanonicalEvent, content: C) -> None:
        self.client = client
        self.log = delivered.log
        self.epoch = delivered.epoch
        self.sequence = delivered.sequence
        self.wire = delivered.wire  # the signed event as JSON
        self.event = event
        self.content = content

    @property
    def place(self) -> ResumePosition:
        """The position of the event in its log."""
        return ResumePosition(self.epoch, self.sequence)

    @property
    def log_id(self) -> str:
        """The ID of the channel, guild or user whose log it is."""
        return self.log.partition(":")[2]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.log} {self.sequence}: {self.content!r})"


class UnknownEvent(LogEvent[UnknownContent]):
    """An event of a type that this client does not know, from a newer server. `event.event_type` has the type."""


class TextRedacted(LogEvent[RedactedContent]):
    """A message or an edit that was redacted before this client read it."""


Said = TypeVar(
    "Said",
    bound=MessageContent | EditContent | RedactionContent | ReactionContent | ReactionsClearedContent | PinContent,
)


class MessageEvent(LogEvent[Said]):
    """An event about the message `message_id` in the channel `channel_id`. `author` is the author of the event."""

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
        """Whether the client's own user is the author."""
        return self.author.id == self.client.user_id

    async def reply(self, text: str, *, nonce: str | None = None) -> Posted:
        """Reply to the message. The same text is posted once as a reply to this event, even if the program runs again.

        Pass a `nonce` to distinguish replies otherwise than by their texts. Raises ApiError, OutcomeUnknown.
        """
        nonce = self._nonce("reply", text) if nonce is None else nonce
        return await self.client.post(self.channel_id, text, reply_to=self.message_id, nonce=nonce)

    def _nonce(self, *parts: str) -> str:
        """Return a nonce that depends only on this event and `parts`."""
        said = "\0".join((self.event.event_id, *parts))
        return sha256(said.encode("utf-8", "surrogatepass")).hexdigest()  # invalid text is refused later

    async def react(self, emoji: str) -> ChangedMessage:
        """Add an emoji to the message. Raises ApiError, OutcomeUnknown."""
        return await self.client.react(self.channel_id, self.message_id, emoji)

    async def unreact(self, emoji: str) -> ChangedMessage:
        """Remove the user's own emoji. Raises ApiError, OutcomeUnknown."""
        return await self.client.unreact(self.channel_id, self.message_id, emoji)

    async def redact(self, reason: str | None = None) -> ChangedMessage:
        """Redact the message: the user's own, or as a moderator any. Raises ApiError, OutcomeUnknown."""
        return await self.client.redact(self.channel_id, self.message_id, reason)

    async def clear_reactions(self, emoji: str | None = None, reason: str | None = None) -> ChangedMessage:
        """Remove all users' reactions with `emoji`, or all reactions, as a moderator. Raises ApiError, OutcomeUnknown."""
        return await self.client.clear_reactions(self.channel_id, self.message_id, emoji, reason)

    def note_read(self) -> None:
        """Move the read position to this event, without waiting for the server."""
        self.client.note_read(self.channel_id, self.sequence)

    async def mark_read(self) -> ReadPosition:
        """Move the read position to this event, and wait for the server. Raises ApiError, OutcomeUnknown."""
        return await self.client.mark_read(self.channel_id, self.sequence)


class MessagePosted(MessageEvent[MessageContent]):
    """A message was posted."""

    __slots__ = ("_edits",)

    def __init__(self, client: Messages, delivered: Delivered, event: CanonicalEvent, content: MessageContent) -> None:
        super().__init__(client, delivered, event, content)
        self._edits = 0  # the number of edits made through this object

    @property
    def text(self) -> str:
        return self.content.content

    async def edit(self, text: str, *, nonce: str | None = None) -> ChangedMessage:
        """Change the text of the user's own message. Raises ApiError, OutcomeUnknown.

        The n-th edit through this event with the same text is stored once, even if the program runs again.
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
    """A message was redacted. Discard its text."""


class ReactionAdded(MessageEvent[ReactionContent]):
    """A user reacted to a message with `content.emoji`."""


class ReactionRemoved(MessageEvent[ReactionContent]):
    """A user removed their reaction."""


class ReactionsCleared(MessageEvent[ReactionsClearedContent]):
    """A moderator removed the reactions with `content.emoji`, or all (None)."""


class MessagePinned(MessageEvent[PinContent]):
    """A message was pinned."""


class MessageUnpinned(MessageEvent[PinContent]):
    """A message was unpinned."""

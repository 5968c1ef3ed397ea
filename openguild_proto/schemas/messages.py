"""Bodies of messages and read positions (PROTOCOL 7.4, 7.7)."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from openguild_proto.records import ReadState
from openguild_proto.schemas.accounts import Body
from openguild_proto.schemas.fields import (
    EVENT,
    MANDATORY,
    REACTIONS,
    AnyInteger,
    Count,
    Emoji,
    EventId,
    MessageText,
    Nonce,
    PreviewText,
    Role,
    Sequence,
    ServerName,
    Timestamp,
    Uuid,
)

ReactionAction: TypeAlias = Literal["add", "remove"]


class AllowedMentions(Body, frozen=True):
    """Restricts the mentions of a text. If a kind is absent, all mentions of this kind are allowed."""

    users: list[Uuid] | None = None
    roles: list[Role] | None = None
    everyone: bool | None = None


class PostMessage(Body, frozen=True):
    """A message to post. With a nonce it is stored only once, however often it is sent."""

    content: MessageText
    sender: str | None = None  # blank or absent means "me"
    nonce: Nonce | None = None
    reply_to: EventId | None = None  # the message that this one replies to
    allowed_mentions: AllowedMentions | None = None  # absent: all mentions of the text


class TypingPreview(Body, frozen=True):
    """The text that the caller is writing, if the caller shows it."""

    preview: PreviewText


class PostedMessage(Body, frozen=True):
    """The place of the message in its channel's log."""

    sequence: Sequence
    event_id: str
    created_at: Timestamp


class ServerKeys(Body, frozen=True):
    """Public keys in base64url without padding, by the key ids of `signatures`."""

    server_name: str
    verify_keys: dict[str, str]


class EditMessage(Body, frozen=True):
    """The new text of a message."""

    content: MessageText
    nonce: Nonce | None = None


class ReactToMessage(Body, frozen=True):
    """A reaction of the caller, to add or to remove."""

    emoji: Annotated[Emoji, MANDATORY] = ""
    action: ReactionAction = "add"
    nonce: Nonce | None = None


class ChangedMessage(Body, frozen=True):
    """The message that was changed, and the place of the change in the log; without a place, nothing had to change."""

    message_id: EventId
    sequence: Sequence | None = None
    event_id: EventId | None = None
    created_at: Timestamp | None = None


class Author(Body, frozen=True):
    """The author of a message."""

    id: str
    username: str | None = None  # None: the message was redacted


class Reaction(Body, frozen=True):
    """One emoji on a message. `reactors`: some of the users, at most MAX_SHOWN_REACTORS."""

    emoji: Emoji
    count: Sequence
    me: bool
    reactors: list[str] = []


class MessagePreview(Body, frozen=True):
    """The beginning of a message that is replied to. Without `content`, this message was redacted."""

    event_id: EventId
    sequence: Sequence
    author: Author
    content: str | None = None


class Message(Body, frozen=True):
    """The current state of a message: its newest text, reactions and replies."""

    event_id: EventId
    sequence: Sequence
    channel_id: Uuid
    author: Author
    created_at: Timestamp
    content: str | None = None  # absent: redacted
    edited_at: Timestamp | None = None
    versions: Sequence = 1
    redacted_by: EventId | None = None
    pinned_at: Timestamp | None = None
    reactions: Annotated[msgspec.Raw | msgspec.UnsetType, REACTIONS] = msgspec.UNSET
    reply_count: Count = 0
    reply_to: EventId | None = None
    reply_preview: MessagePreview | None = None  # absent: that message no longer exists
    origin: ServerName | None = None  # the home server of its author; absent: this one


class Mention(Body, frozen=True):
    """A message that mentions the caller. `direct`: by user id; otherwise through a role or everyone."""

    channel_id: Uuid
    guild_id: Uuid
    event_id: EventId
    sequence: Sequence
    created_at: Timestamp
    author: Author
    content: str  # the beginning of its newest text
    direct: bool
    unread: bool


class TextVersion(Body, frozen=True):
    """One version of a message's text."""

    sequence: Sequence
    event_id: EventId
    created_at: Timestamp
    content: str | None = None  # absent: redacted


class ListedEvent(Body, frozen=True):
    """One event of a channel's log."""

    sequence: Sequence
    channel_id: Uuid
    event: Annotated[msgspec.Raw, EVENT]


class MarkReadBody(Body, frozen=True):
    """The sequence up to which the caller has read."""

    sequence: AnyInteger | None = None  # absent: the newest


class ReadPosition(Body, frozen=True):
    """The caller's read position in a channel."""

    channel_id: Uuid
    last_read_sequence: Count
    latest_sequence: Count
    unread: Count
    mentions: Count  # unread messages that mention the caller, up to MAX_COUNTED_MENTIONS

    @classmethod
    def of(cls, state: ReadState) -> ReadPosition:
        """Return the body for `state`."""
        return cls(state.channel_id, state.last_read_sequence, state.latest_sequence, state.unread, state.mentions)

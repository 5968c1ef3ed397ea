"""What the sockets send, for the description: payloads.py splices these bytes and does not encode the Structs."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from openguild_proto.schemas.accounts import Body
from openguild_proto.schemas.fields import EVENT, Emoji, EventId, MessageText, NameText, ReasonText, Sequence, Uuid
from openguild_proto.schemas.guilds import Channel
from openguild_proto.schemas.messages import ReadPosition


class EventAuthor(Body, frozen=True):
    """Who posted a message, by the name of that moment."""

    id: Uuid
    username: NameText


class MessageContent(Body, frozen=True):
    """`content` of a canonical event whose `event_type` is `message`."""

    author: EventAuthor
    content: MessageText
    nonce: str
    reply_to: EventId | None = None


class EditContent(Body, frozen=True):
    """`content` of `message.edited`: the text that the message `target` has now."""

    author: EventAuthor
    target: EventId
    content: MessageText
    nonce: str


class RedactionContent(Body, frozen=True):
    """`content` of `message.redacted`: the message `target` was taken back."""

    author: EventAuthor
    target: EventId
    nonce: str
    reason: ReasonText | None = None


class ReactionContent(Body, frozen=True):
    """`content` of `reaction.added` and `reaction.removed`."""

    author: EventAuthor
    target: EventId
    emoji: Emoji
    nonce: str


class PinContent(Body, frozen=True):
    """`content` of `message.pinned` and `message.unpinned`."""

    author: EventAuthor
    target: EventId
    nonce: str


class RedactedContent(Body, frozen=True):
    """What is left of the content of a message, or of an edit of one (`target`), that was taken back."""

    content: Literal[""]
    redacted_by: EventId
    target: EventId | None = None


CONTENTS: dict[str, type[Body]] = {
    "message": MessageContent,
    "message.edited": EditContent,
    "message.redacted": RedactionContent,
    "reaction.added": ReactionContent,
    "reaction.removed": ReactionContent,
    "message.pinned": PinContent,
    "message.unpinned": PinContent,
}
"""`content` by the `event_type` of an event."""


class StreamFrame(Body, frozen=True):
    """One text frame of a channel's stream."""

    sequence: Sequence
    channel_id: Uuid
    event: Annotated[msgspec.Raw, EVENT]


class ChannelMessage(Body, frozen=True, tag_field="kind", tag="channel_message"):
    """A message in a channel that the caller may read."""

    sequence: Sequence
    channel_id: Uuid
    event: Annotated[msgspec.Raw, EVENT]


class ChannelEvent(Body, frozen=True, tag_field="kind", tag="channel_event"):
    """Another event in a channel that the caller may read, such as a reaction."""

    sequence: Sequence
    channel_id: Uuid
    event: Annotated[msgspec.Raw, EVENT]


class ChannelCreated(Body, frozen=True, tag_field="kind", tag="channel_created"):
    """A new channel of a guild that the caller is a member of."""

    channel_id: Uuid
    guild_id: Uuid
    event: Channel


class ChannelRead(Body, frozen=True, tag_field="kind", tag="channel_read"):
    """The caller's own read position moved on another device."""

    channel_id: Uuid
    event: ReadPosition


NotificationFrame: TypeAlias = Annotated[
    ChannelMessage | ChannelEvent | ChannelCreated | ChannelRead, msgspec.Meta(title="NotificationFrame")
]
"""One text frame of `/notifications/ws`; a union has a name in the description by its title only."""

"""The Structs of socket messages, for the OpenAPI document only. payloads.py builds the bytes without them."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from openguild_proto.schemas.accounts import Body
from openguild_proto.schemas.fields import EVENT, PreviewText, Sequence, Uuid
from openguild_proto.schemas.guilds import Channel
from openguild_proto.schemas.messages import ReadPosition
from openguild_proto.schemas.presence import MemberPresence


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
    """The caller's read position was moved on another device."""

    channel_id: Uuid
    event: ReadPosition


class TypingUser(Body, frozen=True):
    """A user who is typing, and the text so far if they share it."""

    user_id: Uuid
    preview: PreviewText | None = None


class TypingFrame(Body, frozen=True, tag_field="kind", tag="typing"):
    """Another member is typing in a channel that the caller may read."""

    channel_id: Uuid
    event: TypingUser


class PresenceFrame(Body, frozen=True, tag_field="kind", tag="presence"):
    """A user who shares a guild with the caller connected, disconnected or changed their presence."""

    event: MemberPresence


NotificationFrame: TypeAlias = Annotated[
    ChannelMessage | ChannelEvent | ChannelCreated | ChannelRead | TypingFrame | PresenceFrame,
    msgspec.Meta(title="NotificationFrame"),
]
"""One text frame of `/notifications/ws`. The title names the union in OpenAPI."""

"""Bodies of messages and read positions (PROTOCOL 7.4, 7.7)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from openguild_proto.records import ReadState
from openguild_proto.schemas.accounts import Body
from openguild_proto.schemas.fields import EVENT, Count, MessageText, Nonce, Sequence, Timestamp, Uuid


class PostMessage(Body, frozen=True):
    """A message to post; with a nonce it is stored once, however often it is sent."""

    content: MessageText
    sender: str | None = None  # blank or absent means "me"
    nonce: Nonce | None = None


class PostedMessage(Body, frozen=True):
    """Where the message stands in its channel's log."""

    sequence: Sequence
    event_id: str
    created_at: Timestamp


class ListedEvent(Body, frozen=True):
    """One event of a channel's log."""

    sequence: Sequence
    channel_id: Uuid
    event: Annotated[msgspec.Raw, EVENT]


class MarkReadBody(Body, frozen=True):
    """Up to which sequence the caller has read."""

    sequence: Count | None = None  # absent: the newest


class ReadPosition(Body, frozen=True):
    """How far the caller has read a channel."""

    channel_id: Uuid
    last_read_sequence: Count
    latest_sequence: Count
    unread: Count

    @classmethod
    def of(cls, state: ReadState) -> ReadPosition:
        """Return the body for `state`; `unread` is never negative."""
        unread = max(0, state.latest_sequence - state.last_read_sequence)
        return cls(state.channel_id, state.last_read_sequence, state.latest_sequence, unread)

"""Bodies of messages and read positions (CONTRACT 7)."""

from __future__ import annotations

import msgspec

from openguild_proto.records import ReadState
from openguild_proto.schemas.accounts import Body


class PostMessage(Body, frozen=True):
    content: str
    sender: str | None = None  # blank or absent means "me"
    nonce: str | None = None


class PostedMessage(Body, frozen=True):
    sequence: int
    event_id: str
    created_at: str


class ListedEvent(Body, frozen=True):
    sequence: int
    channel_id: str
    event: msgspec.Raw


class MarkReadBody(Body, frozen=True):
    sequence: int | None = None


class ReadPosition(Body, frozen=True):
    channel_id: str
    last_read_sequence: int
    latest_sequence: int
    unread: int

    @classmethod
    def of(cls, state: ReadState) -> ReadPosition:
        unread = max(0, state.latest_sequence - state.last_read_sequence)
        return cls(state.channel_id, state.last_read_sequence, state.latest_sequence, unread)

"""Effects that read messages in their current state: the newest text, reactions, and the messages they reply to."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.base import StorageEffect
from openguild_proto.policy.reactions import Crowd
from openguild_proto.records import MessageState


class FoundMessage(msgspec.Struct, frozen=True, gc=False):
    """A message in its current state. `wire`: the event that posted it, redacted if the message is."""

    state: MessageState
    wire: bytes
    crowds: tuple[Crowd, ...] = ()  # for each emoji with more users than `state` lists


class MessagePage(msgspec.Struct, frozen=True, gc=False):
    """`messages`: oldest first. `originals`: messages that they reply to, by event id. `head`: of the log."""

    messages: tuple[FoundMessage, ...]
    originals: dict[str, FoundMessage]
    head: int


class ReadMessages(StorageEffect[MessagePage | None], frozen=True):
    """Read a page of the channel's messages, as one snapshot. None: no such channel.

    `after`: the first `limit` with sequence > after. `before`: the last `limit` with sequence < before. `around`: about half of
    `limit` up to this sequence, the rest after it. None of them: the newest. At most one may be set.
    """

    divides_by = "log"
    on_standby = True
    turns_of = "reader_id"

    channel_id: str
    reader_id: str
    limit: int
    after: int | None = None
    before: int | None = None
    around: int | None = None


class FindMessage(StorageEffect[MessagePage | None], frozen=True):
    """Find one message, as a page of one. None: no such message in this channel."""

    divides_by = "log"
    on_standby = True
    turns_of = "reader_id"

    channel_id: str
    reader_id: str
    event_id: str


class ListPins(StorageEffect[MessagePage | None], frozen=True):
    """List the channel's pinned messages, newest pin first. None: no such channel.

    `behind`: the position of the last pin of the previous page: the time of the pin, and the message's sequence.
    """

    divides_by = "log"
    on_standby = True
    turns_of = "reader_id"

    channel_id: str
    reader_id: str
    limit: int
    behind: tuple[int, int] | None = None


class MessageVersion(msgspec.Struct, frozen=True, gc=False):
    """One version of a message's text. `sequence`: of the event that set it."""

    sequence: int
    event_id: str
    wire: bytes
    created_at_ms: int


class ReadVersions(StorageEffect[tuple[MessageVersion, ...] | None], frozen=True):
    """Read all versions of a message's text, oldest first; redacted ones without their text. None: no such message."""

    divides_by = "log"
    on_standby = True
    turns_of = "reader_id"

    channel_id: str
    reader_id: str
    event_id: str

"""Reading messages as they are now: with their newest text, their reactions and what they answer."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.base import StorageEffect
from openguild_proto.policy.reactions import Crowd
from openguild_proto.records import MessageState


class FoundMessage(msgspec.Struct, frozen=True, gc=False):
    """A message as it is now. `wire`: the event that posted it, redacted where the message is."""

    state: MessageState
    wire: bytes
    crowds: tuple[Crowd, ...] = ()  # of each emoji that more users have used than `state` tells


class MessagePage(msgspec.Struct, frozen=True, gc=False):
    """`messages` oldest first. `originals`: those that messages of the page answer, by event id. `head`: of the log."""

    messages: tuple[FoundMessage, ...]
    originals: dict[str, FoundMessage]
    head: int


class ReadMessages(StorageEffect[MessagePage | None], frozen=True):
    """A page of the channel's messages, as one snapshot. None: no such channel.

    `after`: the first `limit` with sequence > after. `before`: the last `limit` with sequence < before. `around`: about half
    of `limit` up to this sequence and the rest behind it. None of them: the newest. One of them at most.
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
    """One message as a page of one. None: no such message in this channel."""

    divides_by = "log"
    on_standby = True
    turns_of = "reader_id"

    channel_id: str
    reader_id: str
    event_id: str


class ListPins(StorageEffect[MessagePage | None], frozen=True):
    """The channel's pinned messages, the newest pin first. None: no such channel.

    `behind`: where the last pin of the page before stands: the time of the pin, and the message's sequence.
    """

    divides_by = "log"
    on_standby = True
    turns_of = "reader_id"

    channel_id: str
    reader_id: str
    limit: int
    behind: tuple[int, int] | None = None


class MessageVersion(msgspec.Struct, frozen=True, gc=False):
    """One text that a message had. `sequence`: of the event that gave it."""

    sequence: int
    event_id: str
    wire: bytes
    created_at_ms: int


class ReadVersions(StorageEffect[tuple[MessageVersion, ...] | None], frozen=True):
    """The message's texts, oldest first; redacted ones too, without their text. None: no such message."""

    divides_by = "log"
    on_standby = True
    turns_of = "reader_id"

    channel_id: str
    reader_id: str
    event_id: str

"""Effects of searching messages. A separate search engine may perform them; policy/search.py defines what matches."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.base import StorageEffect
from openguild_proto.policy.search import SearchConditions
from openguild_proto.records import MessageState, PageCursor


class HitChannel(msgspec.Struct, frozen=True, gc=False):
    """The channel of a found message."""

    channel_id: str
    name: str
    guild_id: str


class SearchHit(msgspec.Struct, frozen=True, gc=False):
    """A found message. `wire`: the event that posted it."""

    channel: HitChannel
    state: MessageState
    wire: bytes

    @property
    def place(self) -> PageCursor:
        """The position in the order of hits: by time, channel and sequence."""
        return PageCursor(self.state.created_at_ms, f"{self.channel.channel_id}:{self.state.sequence:019}")


class SearchTooWide(msgspec.Struct, frozen=True, gc=False):
    """The search was cancelled because it took too long."""


class SearchMessages(StorageEffect[tuple[SearchHit, ...] | SearchTooWide], frozen=True):
    """Find messages by their current state, newest first, in channels that the reader may read now (PROTOCOL 7.11).

    `behind`: the position of the last hit of the previous page.
    """

    on_standby = True

    reader_id: str
    wanted: SearchConditions
    limit: int
    behind: PageCursor | None = None


class IndexMessages(StorageEffect[bool], frozen=True):
    """Add a batch of messages to the store's index, if it has one. True: a full batch may remain, so call again at once.

    `everywhere`: check all logs, not only those that this replica knows to have grown.
    """

    everywhere: bool = False

"""Searching messages. Another engine than the store's own may perform this effect: policy/search.py says what is found."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.base import StorageEffect
from openguild_proto.policy.search import Wanted
from openguild_proto.records import MessageState, PageCursor


class FoundIn(msgspec.Struct, frozen=True, gc=False):
    """The channel of a message that was found."""

    channel_id: str
    name: str
    guild_id: str


class SearchHit(msgspec.Struct, frozen=True, gc=False):
    """A message that was found. `wire`: the event that posted it."""

    channel: FoundIn
    state: MessageState
    wire: bytes

    @property
    def place(self) -> PageCursor:
        """Where it stands in the order of hits: by time, channel and sequence."""
        return PageCursor(self.state.created_at_ms, f"{self.channel.channel_id}:{self.state.sequence:019}")


class SearchTooWide(msgspec.Struct, frozen=True, gc=False):
    """The search was given up: it took too long."""


class SearchMessages(StorageEffect[tuple[SearchHit, ...] | SearchTooWide], frozen=True):
    """Find messages as they are now, the newest first, in channels that the reader may read at this moment (PROTOCOL 7.11).

    `behind`: the place of the last hit of the page before.
    """

    on_standby = True

    reader_id: str
    wanted: Wanted
    limit: int
    behind: PageCursor | None = None


class IndexMessages(StorageEffect[bool], frozen=True):
    """Index some messages that are not yet, where the store has an index. True: there is more, enough not to wait for others.

    `everywhere`: look through all logs, not only through those of which this replica knows that they grew.
    """

    everywhere: bool = False

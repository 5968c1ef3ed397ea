"""Channels, their logs, and who has read how far."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.base import StorageEffect
from openguild_proto.records import (
    Author,
    Change,
    ChannelAccess,
    ChannelRecord,
    LimitReached,
    MessageState,
    PageCursor,
    ReadState,
    StoredEvent,
)
from openguild_proto.settings.sections import GuildSettings


class InsertChannel(StorageEffect[ChannelRecord | LimitReached], frozen=True):
    """A member who creates gets the channel role `moderator`. A non-member gets no role in it, so that nothing is left
    when their server role goes. `limit`: channels of the guild.
    """

    author: Author
    channel_id: str
    guild_id: str
    name: str
    now_ms: int
    limit: int = GuildSettings.max_channels_per_guild


class ListChannels(StorageEffect[tuple[ChannelRecord, ...]], frozen=True):
    """Oldest first, by creation and channel id; `after` is the place of the last one of the page before."""

    guild_id: str
    limit: int | None = None
    after: PageCursor | None = None


class FindChannelAccess(StorageEffect[ChannelAccess | None], frozen=True):
    """None: no such channel."""

    channel_id: str
    user_id: str


class RenameChannel(StorageEffect[ChannelRecord], frozen=True):
    """The channel under its new name."""

    author: Author
    channel_id: str
    name: str


class DeleteChannel(StorageEffect[None], frozen=True):
    """Delete the channel with its log, for good."""

    author: Author
    channel_id: str


class Appended(msgspec.Struct, frozen=True, gc=False):
    """The event is durable. `repeated`: an earlier post with this nonce; nothing was stored or sent now."""

    event: StoredEvent
    repeated: bool = False


class Unchanged(msgspec.Struct, frozen=True, gc=False):
    """The message is already as the change would make it: nothing was stored."""

    state: MessageState


class AppendFailure(msgspec.Struct, frozen=True, gc=False):
    """Nothing was stored. `kind`: "no_channel" or "nonce_reused"."""

    kind: str


class AppendEvent(StorageEffect[Appended | Unchanged | AppendFailure], frozen=True):
    """Give the event the channel's next sequence and store it, in one transaction. A repeat needs the right, too.

    `change`: what it does to an earlier message, which `decide_change` decides in the same transaction. It raises Refusal.
    """

    author: Author | None  # None: no account of this server, such as another server's; nothing is decided
    channel_id: str
    sender_id: str
    event_id: str
    event_type: str
    wire: bytes  # the event as clients see it; the hashed bytes are its own, without id and signatures (PROTOCOL 6.2.7)
    nonce: str | None
    fingerprint: bytes  # 32 bytes over what a repeat must share with the first post
    now_ms: int
    change: Change | None = None  # needs an author


class Posted(msgspec.Struct, frozen=True, gc=False):
    """A durable event and the `fingerprint` it was appended with."""

    event: StoredEvent
    fingerprint: bytes


class FindPosted(StorageEffect[Posted | None], frozen=True):
    """What the sender has posted into the channel under this nonce. None: nothing that is durable."""

    channel_id: str
    sender_id: str
    nonce: str


class ReadEvents(StorageEffect[tuple[StoredEvent, ...] | None], frozen=True):
    """A page of the log, always returned oldest first. None: no such channel.

    `after`: the first `limit` events with sequence > after. `before`: the last `limit` with sequence < before.
    Neither: the newest `limit`. Both at once is the caller's mistake.
    """

    channel_id: str
    limit: int
    after: int | None = None
    before: int | None = None


class MarkRead(StorageEffect[ReadState], frozen=True):
    """Raise the reader's position to `sequence` (None: newest; at most MAX_SEQUENCE), clamped to 0..newest; it never falls.

    Returns what is stored afterwards (PROTOCOL 7.7.2).
    """

    author: Author
    channel_id: str
    sequence: int | None
    now_ms: int


class ListUnread(StorageEffect[tuple[ReadState, ...]], frozen=True):
    """One line per channel of the user's guilds (and channels with an explicit role), by channel creation and id.

    `after`: the place of the last one of the page before.
    """

    user_id: str
    limit: int | None = None
    after: PageCursor | None = None

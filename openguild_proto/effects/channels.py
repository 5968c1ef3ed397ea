"""Effects on channels, their logs and read positions."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.base import StorageEffect
from openguild_proto.policy.repeats import Once
from openguild_proto.records import (
    NOBODY,
    Author,
    Change,
    ChannelAccess,
    ChannelRecord,
    LimitReached,
    Mentions,
    MessageState,
    PageCursor,
    ReadState,
    StoredEvent,
)
from openguild_proto.settings.sections import GuildSettings


class InsertChannel(StorageEffect[ChannelRecord | LimitReached], frozen=True):
    """Create a channel. A member gets the channel role `moderator`, a non-member none, so that they keep no access when their
    server role is revoked. `limit`: channels of the guild. `once`: a repeat returns what the first one did.
    """

    author: Author
    channel_id: str
    guild_id: str
    name: str
    now_ms: int
    topic: str | None = None
    position: int = 0
    limit: int = GuildSettings.max_channels_per_guild
    once: Once | None = None


class ListChannels(StorageEffect[tuple[ChannelRecord, ...]], frozen=True):
    """List the channels of a guild, by creation and id. `after`: the cursor of the last line of the previous page."""

    turns_of = "reader_id"

    guild_id: str
    limit: int | None = None
    after: PageCursor | None = None
    reader_id: str | None = None


class PageBounds(msgspec.Struct, frozen=True, gc=False):
    """A page of a log: the first `limit` events behind `after`, else the last `limit` before `before`, else the newest."""

    limit: int
    after: int | None = None
    before: int | None = None


class FindChannelAccess(StorageEffect[ChannelAccess | None], frozen=True):
    """Find a channel with the user's roles; None: no such channel.

    `page`: what the user is about to read there, in the same round trip. The caller checks the roles before it shows any of it.
    """

    divides_by = "log"
    on_standby = True
    turns_of = "user_id"

    channel_id: str
    user_id: str
    page: PageBounds | None = None


class UpdateChannel(StorageEffect[ChannelRecord], frozen=True):
    """Change what is given; returns the channel. `topic`: an empty one is none."""

    author: Author
    channel_id: str
    now_ms: int
    name: str | None = None
    topic: str | None = None
    position: int | None = None
    reason: str | None = None


class DeleteChannel(StorageEffect[None], frozen=True):
    """Delete the channel with its log."""

    author: Author
    channel_id: str
    now_ms: int
    reason: str | None = None


class Appended(msgspec.Struct, frozen=True, gc=False):
    """A durable event. `repeated`: it was stored by an earlier post; nothing was stored or sent now."""

    event: StoredEvent
    repeated: bool = False


class Unchanged(msgspec.Struct, frozen=True, gc=False):
    """The message is already as the change would make it: nothing was stored."""

    state: MessageState


class AppendFailure(msgspec.Struct, frozen=True, gc=False):
    """A refused append: nothing was stored. `kind`: "no_channel" or "nonce_reused"."""

    kind: str


class AppendEvent(StorageEffect[Appended | Unchanged | AppendFailure], frozen=True):
    """Assign the channel's next sequence and store the event, in one transaction. A repeat needs the permission, too.

    `change`: what it does to an earlier message. `decide_change` decides in the same transaction, and may raise Refusal.
    """

    divides_by = "log"

    author: Author | None  # None: the owner of the channel, another server, has decided; no permission is checked
    channel_id: str
    sender_id: str
    event_id: str
    event_type: str
    wire: bytes  # the event as clients receive it; without id and signatures it is the hashed bytes (PROTOCOL 6.2.7)
    nonce: str | None
    fingerprint: bytes  # 32 bytes, a hash of what a repeat must share with the first post
    now_ms: int
    change: Change | None = None
    mentions: Mentions = NOBODY  # of a message; of many needs MENTION_MANY
    redacted_by: str | None = None  # the content was taken away before the event came from another server


class Posted(msgspec.Struct, frozen=True, gc=False):
    """A durable event and the `fingerprint` it was appended with."""

    event: StoredEvent
    fingerprint: bytes


class FindPosted(StorageEffect[Posted | None], frozen=True):
    """Find the durable event that the sender posted with this nonce; None: there is none."""

    divides_by = "log"
    turns_of = "sender_id"

    channel_id: str
    sender_id: str
    nonce: str


class ReadEvents(StorageEffect[tuple[StoredEvent, ...] | None], frozen=True):
    """Read a page of the log of a channel, guild or user, oldest first. None: there is no such log.

    `after`: the first `limit` events with sequence > after. `before`: the last `limit` with sequence < before.
    Neither: the newest `limit`. Both raise LocalProtocolError.
    """

    divides_by = "log"
    on_standby = True
    turns_of = "reader_id"

    log_id: str
    limit: int
    after: int | None = None
    before: int | None = None
    reader_id: str | None = None  # None: the replica itself


class MarkRead(StorageEffect[ReadState], frozen=True):
    """Raise the author's read position to `sequence` (None: newest; at most MAX_SEQUENCE), clamped to 0..newest.

    It never decreases. Returns the stored position (PROTOCOL 7.7.2).
    """

    divides_by = "log"

    author: Author
    channel_id: str
    sequence: int | None
    now_ms: int


class ListUnread(StorageEffect[tuple[ReadState, ...]], frozen=True):
    """List the read positions in the channels of the user's guilds and those with an explicit role, by creation and id.

    `after`: the cursor of the last line of the previous page.
    """

    divides_by = "user"
    on_standby = True
    turns_of = "user_id"

    user_id: str
    limit: int | None = None
    after: PageCursor | None = None

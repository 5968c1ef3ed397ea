"""Effects on channels, their logs and read positions."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.base import StorageEffect
from openguild_proto.policy.repeats import IdempotencyKey
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
    """Create a channel. `limit`: channels of the guild. `once`: a repeat returns the result of the first request.

    A member of the guild gets the channel role `moderator`. A non-member gets none, so that their access ends with their
    server role.
    """

    author: Author
    channel_id: str
    guild_id: str
    name: str
    now_ms: int
    topic: str | None = None
    position: int = 0
    limit: int = GuildSettings.max_channels_per_guild
    once: IdempotencyKey | None = None


class ListChannels(StorageEffect[tuple[ChannelRecord, ...]], frozen=True):
    """List the channels of a guild, by creation and id. `after`: the cursor of the last entry of the previous page."""

    turns_of = "reader_id"

    guild_id: str
    limit: int | None = None
    after: PageCursor | None = None
    reader_id: str | None = None


class PageBounds(msgspec.Struct, frozen=True, gc=False):
    """A page of a log: the first `limit` events after `after`, else the last `limit` before `before`, else the newest."""

    limit: int
    after: int | None = None
    before: int | None = None


class FindChannelAccess(StorageEffect[ChannelAccess | None], frozen=True):
    """Find a channel with the user's roles. None: no such channel.

    `page`: also read this page, to save a round trip. The caller must check the roles before it shows the page.
    """

    divides_by = "log"
    on_standby = True
    turns_of = "user_id"

    channel_id: str
    user_id: str
    page: PageBounds | None = None


class UpdateChannel(StorageEffect[ChannelRecord], frozen=True):
    """Change the given fields, and return the channel. An empty `topic` removes the topic."""

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
    """A durable event. `repeated`: an earlier post stored it, and nothing was stored or sent now."""

    event: StoredEvent
    repeated: bool = False


class Unchanged(msgspec.Struct, frozen=True, gc=False):
    """The message already has the requested state. Nothing was stored."""

    state: MessageState


class AppendFailure(msgspec.Struct, frozen=True, gc=False):
    """A refused append: nothing was stored. `kind`: "no_channel" or "nonce_reused"."""

    kind: str


class AppendEvent(StorageEffect[Appended | Unchanged | AppendFailure], frozen=True):
    """Assign the channel's next sequence and store the event, in one transaction. A repeat also needs the permission.

    `change`: the change of an earlier message. `decide_change` checks it in the same transaction and may raise Refusal.
    """

    divides_by = "log"

    author: Author | None  # None: the channel's owner server has decided, so no permission is checked
    channel_id: str
    sender_id: str
    event_id: str
    event_type: str
    wire: bytes  # the event as clients receive it; without id and signatures, the hashed bytes (PROTOCOL 6.2.7)
    nonce: str | None
    fingerprint: bytes  # 32 bytes: a hash of the values that a repeat must share with the first post
    now_ms: int
    change: Change | None = None
    mentions: Mentions = NOBODY  # of a message; `of_many` needs MENTION_MANY
    redacted_by: str | None = None  # event id, if another server sent it already redacted


class Posted(msgspec.Struct, frozen=True, gc=False):
    """A durable event, and the `fingerprint` with which it was appended."""

    event: StoredEvent
    fingerprint: bytes


class FindPosted(StorageEffect[Posted | None], frozen=True):
    """Find the durable event that the sender posted with this nonce. None: no such event."""

    divides_by = "log"
    turns_of = "sender_id"

    channel_id: str
    sender_id: str
    nonce: str


class ReadEvents(StorageEffect[tuple[StoredEvent, ...] | None], frozen=True):
    """Read a page of the log of a channel, guild or user, oldest first. None: no such log.

    `after`: the first `limit` events with sequence > after. `before`: the last `limit` with sequence < before.
    Neither: the newest `limit`. Both: raises LocalProtocolError.
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

    `after`: the cursor of the last entry of the previous page.
    """

    divides_by = "user"
    on_standby = True
    turns_of = "user_id"

    user_id: str
    limit: int | None = None
    after: PageCursor | None = None

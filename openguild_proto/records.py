"""The records of the store, as frozen Structs. Ids are UUID text, lower case, with hyphens; `_ms` fields UTC milliseconds."""

from __future__ import annotations

from enum import Enum

import msgspec

from openguild_proto.event_page import EventPage


class Record(msgspec.Struct, frozen=True, gc=False):
    """Base of every record."""


class Author(Record, frozen=True):
    """The author of a change, and their session. `session_id` None: no session, so no check that it is still open."""

    user_id: str
    session_id: str | None = None


class PageCursor(Record, frozen=True):
    """The position in a list ordered by time, then key. A page begins after it, even if that entry is gone."""

    at_ms: int
    key: str


class LogPosition(Record, frozen=True):
    """A position in the log of a channel, guild or user: the sequence, and the epoch in which it counts."""

    log_id: str
    epoch: int
    sequence: int


class LogPart(Record, frozen=True):
    """The first `size` events of a log after the sequence `after`."""

    log_id: str
    after: int
    size: int


class LogAccess(Record, frozen=True):
    """A user's roles in one log, and the position of its newest event. `kind`: "channel", "guild" or "user"."""

    kind: str
    place: LogPosition
    memberships: tuple[str | None, ...]  # roles in the guild and in the channel; None: not a member
    server_roles: tuple[str, ...]
    base: int = 0  # a mirrored log begins here after this sequence


class UserRecord(Record, frozen=True):
    """An account."""

    user_id: str
    username: str  # as registered, NFKC
    password_hash: str  # PHC string; never leaves the core and the store
    created_at_ms: int
    updated_at_ms: int
    display_name: str | None = None  # None: the username
    origin: str | None = None  # the home server of a remote user; None: this server


class GuildRecord(Record, frozen=True):
    """A guild."""

    guild_id: str
    name: str
    created_at_ms: int
    origin: str | None = None  # the owner server of a mirrored guild; None: this server


class ChannelRecord(Record, frozen=True):
    """A channel of a guild. The head of its log is in `ChannelAccess`."""

    channel_id: str
    guild_id: str
    name: str
    created_at_ms: int
    topic: str | None = None
    position: int = 0  # clients show lower ones first
    epoch: int = 1  # of its log, 1 to MAX_SAFE_INTEGER; sequences of different epochs are unrelated
    origin: str | None = None  # as for its guild
    base_sequence: int | None = None  # of a mirrored log: events up to here are only at the origin; None: not mirrored


class Head(Record, frozen=True):
    """The end of a channel's log."""

    sequence: int  # 0: it is empty
    epoch: int = 1


class GuildMembership(Record, frozen=True):
    """An entry of `guilds` in /users/me."""

    guild_id: str
    name: str
    role: str
    joined_at_ms: int


class ChannelMembership(Record, frozen=True):
    """An entry of `channels` in /users/me. `role` and `joined_at_ms` are the channel's, else the guild's."""

    channel_id: str
    guild_id: str
    name: str
    role: str
    joined_at_ms: int


class UserProfile(Record, frozen=True):
    """Everything /users/me shows, read in one snapshot."""

    user: UserRecord
    server_roles: tuple[str, ...]  # by (granted_at, role)
    guilds: tuple[GuildMembership, ...]  # by guild creation
    channels: tuple[ChannelMembership, ...]  # of their guilds, and those with an explicit role; by joined_at
    place: LogPosition  # of the newest event in the user's log


class GuildAccess(Record, frozen=True):
    """A user's roles in one guild. `role` is None for non-members."""

    guild: GuildRecord
    role: str | None
    server_roles: tuple[str, ...]
    place: LogPosition  # of the newest event in the guild's log
    base: int = 0  # a mirrored log begins here after this sequence


class ChannelAccess(Record, frozen=True):
    """A user's roles in one channel, and the head of its log."""

    channel: ChannelRecord
    guild_role: str | None  # None: not a member of the guild
    channel_role: str | None  # None: no explicit role in the channel
    server_roles: tuple[str, ...]
    head: int  # newest sequence, 0 when the channel is empty
    page: EventPage | None = None  # if one was requested


class MemberRecord(Record, frozen=True):
    """A member of a guild as `GET /guilds/{guild_id}/members` lists it."""

    guild_id: str
    user_id: str
    username: str
    role: str
    joined_at_ms: int
    display_name: str | None = None
    origin: str | None = None  # the user's home server; None: this server
    timed_out_until_ms: int | None = None  # None: not timed out


class InviteRecord(Record, frozen=True):
    """An invite, which may be used up or expired. `max_uses` None: unlimited. `expires_at_ms` None: never expires."""

    code: str
    guild_id: str
    guild_name: str
    max_uses: int | None
    uses: int
    expires_at_ms: int | None
    created_by: str
    created_at_ms: int
    member_count: int = 0
    origin: str | None = None  # of its guild; FindInvite alone sets these two


class SessionRecord(Record, frozen=True):
    """A session, active or ended. A session ends when its family is revoked; rotation adds a session to the family."""

    session_id: str
    user_id: str
    username: str | None  # None: the account was deleted
    revoked: bool


class DeviceRecord(Record, frozen=True):
    """A device of a user with an active session family."""

    device_id: str
    device_name: str | None
    last_seen_at_ms: int
    ip_address: str | None
    user_agent: str | None


class StoredEvent(Record, frozen=True):
    """One event of a log. `wire` is its complete JSON object in bytes, with event_id and signatures."""

    log_id: str  # of the channel, guild or user
    sequence: int
    event_id: str
    wire: bytes
    created_at_ms: int


NO_REACTIONS = "[]"


class MessageState(Record, frozen=True):
    """A message and its current state."""

    sequence: int  # of the event that posted it, as `event_id` and `created_at_ms`
    event_id: str
    author_id: str
    created_at_ms: int
    edited_text: str | None = None  # the newest text; None: never edited
    edited_at_ms: int | None = None
    versions: int = 1  # number of its texts
    redacted_by: str | None = None  # event id of the redaction; the text is gone
    pinned_at_ms: int | None = None
    replies: int = 0
    reactions: str = NO_REACTIONS  # JSON, in the order of first use (policy/reactions.py)
    is_crowded: bool = False  # for some emoji `reactions` does not name all users


class SeenMessage(Record, frozen=True):
    """A message as read before a change of it is stored."""

    state: MessageState
    revision: int  # sequence of its newest change; 0: unchanged
    has_reacted: bool  # whether the author of the change has reacted with its emoji


class Change(Record, frozen=True):
    """A change that an event makes to an earlier message of its channel. `target`: the message's event id."""

    target: str


class Reply(Change, frozen=True):
    """The event is a message that replies to the target."""


class Edit(Change, frozen=True):
    """The target's text becomes `text`."""

    text: str


class Redact(Change, frozen=True):
    """The target's content is removed for good. `reason`: a moderator's, None for the author."""

    reason: str | None = None


class React(Change, frozen=True):
    """The author of the event adds or removes one of their reactions."""

    emoji: str
    adds: bool


class ClearReactions(Change, frozen=True):
    """A moderator removes the reactions of all users: those with `emoji`, or all of them (None)."""

    emoji: str | None = None
    reason: str | None = None


class Pin(Change, frozen=True):
    """The target is pinned to its channel, or unpinned."""

    pins: bool


class Mentions(Record, frozen=True):
    """The mentions of a message. `roles` mentions the members whose effective role in the channel is one of these."""

    users: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    everyone: bool = False

    @property
    def of_many(self) -> bool:
        """Whether a role or everyone is mentioned."""
        return bool(self.roles) or self.everyone


NOBODY = Mentions()


class MentionRecord(Record, frozen=True):
    """A message that mentions a user, in its current state."""

    channel_id: str
    guild_id: str
    sequence: int
    event_id: str
    created_at_ms: int
    wire: bytes
    edited_text: str | None
    direct: bool  # by user id; else by a role or as everyone
    unread: bool


class ReadState(Record, frozen=True):
    """A user's read position in a channel. Positions are sequences; 0: nothing read, or an empty channel."""

    channel_id: str
    last_read_sequence: int
    latest_sequence: int
    unread: int  # messages of others after the position
    mentions: int = 0  # how many of these mention the user
    created_at_ms: int = 0  # of the channel; set only by ListUnread


class LimitReached(Record, frozen=True):
    """Nothing was stored, because the maximum number already exists."""

    limit: int


class MemberChange(Enum):
    """Outcome of changing or removing a member."""

    DONE = "done"
    NOT_MEMBER = "not_member"
    LAST_OWNER = "last_owner"
    LIMIT_REACHED = "limit_reached"  # they already own the maximum number of guilds
    BANNED = "banned"  # banned, and not a member


class RefreshFamily(Record, frozen=True):
    """The family of a refresh token, and the secret from which its successor is derived."""

    user_id: str
    secret: bytes


class RotatedRefresh(Record, frozen=True):
    """The refresh token was valid: a new session of the same family is stored."""

    user_id: str
    username: str | None


class ReusedRefresh(Record, frozen=True):
    """A rotated token was used again after its grace period: the whole family was revoked (PROTOCOL 4.6.5)."""

    user_id: str
    family_id: str


class ControlKind(Enum):
    """A change that all replicas must learn of (PROTOCOL 10.4). The comments name the fields that are set."""

    SESSIONS_REVOKED = "sessions_revoked"  # session_ids
    MEMBER_JOINED = "member_joined"  # guild_id, user_id
    MEMBER_CHANGED = "member_changed"  # guild_id, user_id: the role changed, so access must be checked again
    MEMBER_REMOVED = "member_removed"  # guild_id, user_id
    ACCESS_CHANGED = "access_changed"  # user_id: a server or channel role changed
    CHANNEL_CREATED = "channel_created"  # guild_id, channel_id, body = channel JSON for the notification
    CHANNEL_DELETED = "channel_deleted"  # guild_id, channel_id
    LOGS_RENEWED = "logs_renewed"  # guild_id: the logs of a mirrored guild have a new epoch
    GUILD_DELETED = "guild_deleted"  # guild_id, body = JSON array of the ids of its channels

    @classmethod
    def _missing_(cls, value: object) -> ControlKind:
        """Accept kinds that a later release added, as UNKNOWN. Raising would stop the replicas of this release at that record."""
        kind = object.__new__(cls)
        kind._name_, kind._value_ = "UNKNOWN", str(value)
        return kind

    @property
    def is_known(self) -> bool:
        """Whether this release knows the kind."""
        return self.name != "UNKNOWN"


class ControlRecord(Record, frozen=True):
    """A record of the control log, stored with its change. Replicas that miss it on NATS read it at their next tail check."""

    sequence: int
    kind: ControlKind
    guild_id: str | None = None
    channel_id: str | None = None
    user_id: str | None = None
    session_ids: tuple[str, ...] = ()
    body: str | None = None  # JSON text, for kinds that have one


class History(Record, frozen=True):
    """The history of a database, from one read."""

    lineage: str | None  # the cluster and its timeline; None: the database does not report it
    recorded: str | None  # the lineage in which the channels got their epochs; None: not recorded yet
    renewals: int  # how often all channels have got a new epoch
    lacks: bool = False  # an event that this replica stored is missing from a channel that exists
    standby: bool = False  # read-only and possibly behind: its history counts only after promotion
    database: str = ""  # id of this database, shared by its replicas and changed when the epochs are renewed

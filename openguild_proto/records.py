"""Records of the store: frozen Structs that effects return. Ids are UUID text, lower case, with hyphens; `_ms` UTC milliseconds."""

from __future__ import annotations

from enum import Enum

import msgspec

from openguild_proto.event_page import EventPage


class Record(msgspec.Struct, frozen=True, gc=False):
    """Base of every record."""


class Author(Record, frozen=True):
    """The author of a change, and their session. `session_id` None: there is none, so none can have ended."""

    user_id: str
    session_id: str | None = None


class PageCursor(Record, frozen=True):
    """Where a line stands in a list that is ordered by time, then by key: a page begins after it, there or not."""

    at_ms: int
    key: str


class LogPlace(Record, frozen=True):
    """Where an event stands: the sequence `sequence` of the log of a channel, guild or user, which counts in `epoch`."""

    log_id: str
    epoch: int
    sequence: int


class LogPart(Record, frozen=True):
    """The first `size` events of a log after the sequence `after`."""

    log_id: str
    after: int
    size: int


class LogAccess(Record, frozen=True):
    """A user's roles in one log, and its newest place. `kind`: "channel", "guild" or "user"."""

    kind: str
    place: LogPlace
    memberships: tuple[str | None, ...]  # roles in the guild and in the channel; None: not a member
    server_roles: tuple[str, ...]
    base: int = 0  # behind which a mirrored log begins here


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
    """A channel of a guild; its log's head stands in `ChannelAccess`."""

    channel_id: str
    guild_id: str
    name: str
    created_at_ms: int
    topic: str | None = None
    position: int = 0  # clients show lower ones first
    epoch: int = 1  # of its log: sequences of two epochs have nothing to do with each other; 1 to MAX_SAFE_INTEGER
    origin: str | None = None  # as of its guild
    base_sequence: int | None = None  # of a mirrored log: events up to here are only at the origin; None: not mirrored


class Head(Record, frozen=True):
    """Where the log of a channel ends."""

    sequence: int  # 0: it is empty
    epoch: int = 1


class GuildMembership(Record, frozen=True):
    """One line of `guilds` in /users/me."""

    guild_id: str
    name: str
    role: str
    joined_at_ms: int


class ChannelMembership(Record, frozen=True):
    """One line of `channels` in /users/me. `role`, `joined_at_ms`: their own in the channel, else those by the guild."""

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
    place: LogPlace  # the newest of the user's log


class GuildAccess(Record, frozen=True):
    """A user's roles in one guild. `role` None: no membership row."""

    guild: GuildRecord
    role: str | None
    server_roles: tuple[str, ...]
    place: LogPlace  # the newest of the guild's log
    base: int = 0  # behind which a mirrored log begins here


class ChannelAccess(Record, frozen=True):
    """A user's roles in one channel, and the newest place of the channel's log."""

    channel: ChannelRecord
    guild_role: str | None  # None: not a member of the guild
    channel_role: str | None  # None: no explicit role in the channel
    server_roles: tuple[str, ...]
    head: int  # newest sequence, 0 when the channel is empty
    page: EventPage | None = None  # that was asked for


class MemberRecord(Record, frozen=True):
    """A member of a guild as `GET /guilds/{guild_id}/members` lists it."""

    guild_id: str
    user_id: str
    username: str
    role: str
    joined_at_ms: int
    display_name: str | None = None
    origin: str | None = None  # as of the user
    timed_out_until_ms: int | None = None  # None: they are not timed out now


class InviteRecord(Record, frozen=True):
    """An invite, spent and expired ones too. None: any number of uses, no end. FindInvite fills the last two."""

    code: str
    guild_id: str
    guild_name: str
    max_uses: int | None
    uses: int
    expires_at_ms: int | None
    created_by: str
    created_at_ms: int
    member_count: int = 0
    origin: str | None = None  # of its guild


class SessionRecord(Record, frozen=True):
    """A live or ended session. A session ends by revocation of its family; rotation adds a session to the family."""

    session_id: str
    user_id: str
    username: str | None  # None: the account is gone
    revoked: bool


class DeviceRecord(Record, frozen=True):
    """A device of a user, with a living session family."""

    device_id: str
    device_name: str | None
    last_seen_at_ms: int
    ip_address: str | None
    user_agent: str | None


class StoredEvent(Record, frozen=True):
    """One event of a log. `wire` is the event's JSON object as bytes, event_id and signatures filled in."""

    log_id: str  # of the channel, guild or user
    sequence: int
    event_id: str
    wire: bytes
    created_at_ms: int


NO_REACTIONS = "[]"


class MessageState(Record, frozen=True):
    """A message and what has become of it since it was posted."""

    sequence: int  # of the event that posted it, as are `event_id` and the time
    event_id: str
    author_id: str
    created_at_ms: int
    edited_text: str | None = None  # the newest text, where it was edited
    edited_at_ms: int | None = None
    versions: int = 1  # texts it has had
    redacted_by: str | None = None  # event id of the redaction: there is no text any more
    pinned_at_ms: int | None = None
    replies: int = 0
    reactions: str = NO_REACTIONS  # JSON, by the first use (policy/reactions.py)
    is_crowded: bool = False  # more users have used one of the emoji than `reactions` names


class SeenMessage(Record, frozen=True):
    """A message as it was when it was read, before a change of it is stored."""

    state: MessageState
    revision: int  # sequence of the event that changed it last; 0: none has
    has_reacted: bool  # the author of the change, with its emoji


class Change(Record, frozen=True):
    """The change that an event makes to an earlier message of its channel. `target`: the event id of that message."""

    target: str


class Reply(Change, frozen=True):
    """The event is a message that answers the target."""


class Edit(Change, frozen=True):
    """The target's text becomes `text`."""

    text: str


class Redact(Change, frozen=True):
    """The target's texts are taken away, for good. `reason`: of somebody who is not the author."""

    reason: str | None = None


class React(Change, frozen=True):
    """The author of the event adds or takes back one emoji of theirs."""

    emoji: str
    adds: bool


class ClearReactions(Change, frozen=True):
    """A moderator takes the reactions of all users away: those with `emoji`, or all (None)."""

    emoji: str | None = None
    reason: str | None = None


class Pin(Change, frozen=True):
    """The target is pinned to its channel, or no longer."""

    pins: bool


class Mentions(Record, frozen=True):
    """The mentions of a message. `roles`: all members with one of them as their effective role in the channel."""

    users: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    everyone: bool = False

    @property
    def of_many(self) -> bool:
        """Whether others than single users are mentioned."""
        return bool(self.roles) or self.everyone


NOBODY = Mentions()


class MentionRecord(Record, frozen=True):
    """A message that mentions a user, as it is now."""

    channel_id: str
    guild_id: str
    sequence: int
    event_id: str
    created_at_ms: int
    wire: bytes
    edited_text: str | None
    direct: bool  # by their id; else by a role or as everyone
    unread: bool


class ReadState(Record, frozen=True):
    """How far a user has read a channel. Sequences; 0: nothing read, or an empty channel."""

    channel_id: str
    last_read_sequence: int
    latest_sequence: int
    unread: int  # messages of others behind the position
    mentions: int = 0  # of these, those that mention the user
    created_at_ms: int = 0  # of the channel; filled by ListUnread


class LimitReached(Record, frozen=True):
    """Nothing was stored: there are as many as there may be."""

    limit: int


class MemberChange(Enum):
    """Outcome of changing or removing a member."""

    DONE = "done"
    NOT_MEMBER = "not_member"
    LAST_OWNER = "last_owner"
    LIMIT_REACHED = "limit_reached"  # they own as many guilds as one may
    BANNED = "banned"  # they are no member, and may not be one


class RefreshFamily(Record, frozen=True):
    """The family of a refresh token, and the secret from which its successor is derived."""

    user_id: str
    secret: bytes | None  # None: opened by a release that gave it none


class RotatedRefresh(Record, frozen=True):
    """The refresh token was good: a new session of the same family is stored."""

    user_id: str
    username: str | None


class ReusedRefresh(Record, frozen=True):
    """A rotated token came back after its grace: the whole family has been revoked (PROTOCOL 4.6.5)."""

    user_id: str
    family_id: str


class ControlKind(Enum):
    """A change that all replicas must hear about (PROTOCOL 10.4)."""

    SESSIONS_REVOKED = "sessions_revoked"  # session_ids
    MEMBER_JOINED = "member_joined"  # guild_id, user_id
    MEMBER_CHANGED = "member_changed"  # guild_id, user_id: role changed, access is to be re-checked
    MEMBER_REMOVED = "member_removed"  # guild_id, user_id
    ACCESS_CHANGED = "access_changed"  # user_id: a server or channel role changed
    CHANNEL_CREATED = "channel_created"  # guild_id, channel_id, body = channel JSON for the notification
    CHANNEL_DELETED = "channel_deleted"  # guild_id, channel_id
    LOGS_RENEWED = "logs_renewed"  # guild_id: the logs of a mirrored guild have another epoch
    GUILD_DELETED = "guild_deleted"  # guild_id, body = JSON array of the ids of its channels

    @classmethod
    def _missing_(cls, value: object) -> ControlKind:
        """A kind of a newer release changes nothing here: one row that raised would stop all replicas of the release before."""
        kind = object.__new__(cls)
        kind._name_, kind._value_ = "UNKNOWN", str(value)
        return kind

    @property
    def is_known(self) -> bool:
        """This release knows what it means."""
        return self.name != "UNKNOWN"


class ControlRecord(Record, frozen=True):
    """One line of the control log, stored with its change. A replica that NATS did not tell reads it at its next tail check."""

    sequence: int
    kind: ControlKind
    guild_id: str | None = None
    channel_id: str | None = None
    user_id: str | None = None
    session_ids: tuple[str, ...] = ()
    body: str | None = None  # JSON text, where the kind has one


class History(Record, frozen=True):
    """The state of a database, from one reading."""

    lineage: str | None  # the cluster and its timeline; None: it does not say
    recorded: str | None  # the lineage for which the channels have their epochs; None: not recorded yet
    renewals: int  # how often every channel was given a new epoch
    lacks: bool = False  # an event that this replica stored, in a channel that is there
    standby: bool = False  # it may be behind, and cannot be written: it says nothing until it is promoted
    database: str = ""  # an id, given anew with the epochs, by which replicas of one database know each other

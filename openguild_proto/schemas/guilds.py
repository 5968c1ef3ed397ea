"""Bodies of guilds, members, invites and channels (PROTOCOL 5.4 to 5.7)."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from openguild_proto.mirror_records import GuildBan, Handover
from openguild_proto.policy.invites import invite_id
from openguild_proto.records import ChannelRecord, GuildRecord, InviteRecord, MemberRecord
from openguild_proto.schemas.accounts import Body
from openguild_proto.schemas.between_servers import RemoteInvite
from openguild_proto.schemas.fields import (
    Count,
    Epoch,
    InviteSeconds,
    InviteUses,
    NameText,
    Position,
    ReasonText,
    Role,
    ServerName,
    TimeoutSeconds,
    Timestamp,
    TopicText,
    Uuid,
)
from openguild_proto.timestamps import from_millis


class Name(Body, frozen=True):
    """The name of a guild or a channel."""

    name: NameText


class Successor(Body, frozen=True):
    """The server that may continue a guild if this server is lost."""

    server: ServerName


class Succession(Body, frozen=True):
    """The server that may continue a guild. `statement`: keep a copy that survives the loss of this server."""

    server: ServerName
    expires_at: Timestamp
    statement: Handover


class NewChannel(Body, frozen=True):
    """A new channel."""

    name: NameText
    topic: TopicText | None = None
    position: Position | None = None  # absent: 0


class ChannelChange(Body, frozen=True):
    """Changes of a channel, at least one. An empty topic removes the topic."""

    name: NameText | UnsetType = UNSET
    topic: TopicText | UnsetType = UNSET
    position: Position | UnsetType = UNSET


class Guild(Body, frozen=True):
    """A guild."""

    guild_id: Uuid
    name: NameText
    created_at: Timestamp
    origin: ServerName | None = None  # the server that owns it; absent: this one
    offline: bool = False  # no contact with that server for minutes: the data may be old

    @classmethod
    def of(cls, record: GuildRecord, *, offline: bool = False) -> Guild:
        """Return the body for `record`."""
        return cls(record.guild_id, record.name, from_millis(record.created_at_ms), record.origin, offline)


class Channel(Body, frozen=True):
    """A channel of a guild. Clients sort channels by position, then by age, oldest first."""

    channel_id: Uuid
    guild_id: Uuid
    name: NameText
    created_at: Timestamp
    epoch: Epoch
    topic: TopicText | None = None
    position: Position = 0
    origin: ServerName | None = None  # the same as its guild's

    @classmethod
    def of(cls, record: ChannelRecord) -> Channel:
        """Return the body for `record`."""
        return cls(
            record.channel_id,
            record.guild_id,
            record.name,
            from_millis(record.created_at_ms),
            record.epoch,
            record.topic,
            record.position,
            record.origin,
        )


class RoleBody(Body, frozen=True):
    """The new role of a member."""

    role: Role


class Member(Body, frozen=True):
    """A member of a guild."""

    guild_id: Uuid
    user_id: Uuid
    username: str
    role: Role
    joined_at: Timestamp
    display_name: NameText | None = None
    origin: ServerName | None = None  # the home server of a remote user; absent: this one
    timed_out_until: Timestamp | None = None  # absent: the member is not timed out

    @classmethod
    def of(cls, record: MemberRecord) -> Member:
        """Return the body for `record`."""
        return cls(
            record.guild_id,
            record.user_id,
            record.username,
            record.role,
            from_millis(record.joined_at_ms),
            record.display_name,
            record.origin,
            from_millis(record.timed_out_until_ms) if record.timed_out_until_ms is not None else None,
        )


class TimeOut(Body, frozen=True):
    """A time-out: how long a member may not write."""

    secs: TimeoutSeconds


class Ban(Body, frozen=True):
    """A user who may not join a guild. `username`: at the time of the ban; absent if the server did not know the user."""

    guild_id: Uuid
    user_id: Uuid
    banned_by: Uuid
    banned_at: Timestamp
    username: NameText | None = None
    reason: ReasonText | None = None

    @classmethod
    def of(cls, guild_id: str, ban: GuildBan) -> Ban:
        """Return the body for a ban of the guild."""
        return cls(guild_id, ban.user_id, ban.banned_by, from_millis(ban.banned_at_ms), ban.username, ban.reason)


class NewInvite(Body, frozen=True):
    """Limits of a new invite. Without them, the invite does not expire, and any number of users may join."""

    max_uses: InviteUses | None = None
    expires_in_secs: InviteSeconds | None = None


class Invite(Body, frozen=True, omit_defaults=False):
    """An invite to a guild. `invite_id`: its name in the guild's log, which does not contain the code."""

    invite_id: str
    code: str
    guild_id: Uuid
    max_uses: InviteUses | None
    uses: Count
    expires_at: Timestamp | None
    created_by: Uuid

    @classmethod
    def of(cls, record: InviteRecord) -> Invite:
        """Return the body for `record`."""
        expires_at = from_millis(record.expires_at_ms) if record.expires_at_ms is not None else None
        return cls(
            invite_id(record.code),
            record.code,
            record.guild_id,
            record.max_uses,
            record.uses,
            expires_at,
            record.created_by,
        )


class InvitePreview(Body, frozen=True, omit_defaults=False):
    """The guild and the role of an invite. `origin`: the server that owns the guild, if it is another one."""

    code: str
    guild_id: Uuid
    guild_name: NameText
    member_count: Count
    max_uses: InviteUses | None
    uses: Count
    expires_at: Timestamp | None
    created_by: Uuid
    origin: ServerName | UnsetType = UNSET

    @classmethod
    def of(cls, record: InviteRecord) -> InvitePreview:
        """Return the body for a `record` of FindInvite."""
        line = Invite.of(record)
        return cls(
            line.code,
            line.guild_id,
            record.guild_name,
            record.member_count,
            line.max_uses,
            line.uses,
            line.expires_at,
            line.created_by,
        )

    @classmethod
    def of_remote(cls, code: str, server: str, invite: RemoteInvite) -> InvitePreview:
        """Return the body for an invite of another server."""
        expires_at = from_millis(invite.expires_at_ms) if invite.expires_at_ms is not None else None
        return cls(
            code,
            invite.guild_id,
            invite.guild_name,
            invite.member_count,
            invite.max_uses,
            invite.uses,
            expires_at,
            invite.created_by,
            server,
        )

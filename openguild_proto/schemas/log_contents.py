"""Contents of the events of a guild's and a user's log, by their `event_type` (PROTOCOL 6.9, 6.10).

Each is written in the transaction of the change that it tells. `reason` is what the actor, the event's `sender`, gave for it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from openguild_proto.schemas.accounts import Body
from openguild_proto.schemas.fields import (
    Count,
    DeviceText,
    Epoch,
    EventId,
    InviteUses,
    NameText,
    Position,
    ReasonText,
    Role,
    Sequence,
    ServerName,
    Timestamp,
    TopicText,
    Uuid,
)


class LogContent(Body, frozen=True):
    """Base of all contents. An event's `content` also has `place`: its epoch and sequence."""

    event_type: ClassVar[str]

    def members(self) -> dict[str, Any]:
        """Return the members of `content`, without absent ones."""
        members: dict[str, Any] = msgspec.to_builtins(self)
        return members


# --- of a guild's log ----------------------------------------------------------------------------


class GuildCreatedContent(LogContent, frozen=True):
    """The guild was created. The next event is the join of its owner."""

    event_type = "guild.created"
    name: NameText


class GuildUpdatedContent(LogContent, frozen=True):
    """The guild was renamed."""

    event_type = "guild.updated"
    name: NameText
    reason: ReasonText | None = None


class GuildSuccessorSetContent(LogContent, frozen=True):
    """An owner named the server that may continue the guild if this one is lost; absent: none. Lower serials are void."""

    event_type = "guild.successor_set"
    serial: Count
    server: ServerName | None = None


class GuildMovedContent(LogContent, frozen=True):
    """The guild has a new owner server, which wrote this event. `lost`: the former one is lost, with all data that only it had."""

    event_type = "guild.moved"
    former: ServerName
    owner: ServerName
    term: Sequence
    lost: bool = False


class ChannelCreatedContent(LogContent, frozen=True):
    """A channel was created."""

    event_type = "channel.created"
    channel_id: Uuid
    name: NameText
    topic: TopicText | None = None
    position: Position = 0


class ChannelUpdatedContent(LogContent, frozen=True):
    """A channel was changed. The content is the whole channel, unchanged values included."""

    event_type = "channel.updated"
    channel_id: Uuid
    name: NameText
    topic: TopicText | None = None
    position: Position = 0
    reason: ReasonText | None = None


class ChannelDeletedContent(LogContent, frozen=True):
    """A channel was deleted, with its log."""

    event_type = "channel.deleted"
    channel_id: Uuid
    name: NameText
    reason: ReasonText | None = None


class ChannelRoleSetContent(LogContent, frozen=True):
    """A user has a role in one channel, in addition to the role in the guild."""

    event_type = "channel.role_set"
    channel_id: Uuid
    user_id: Uuid
    role: Role


class MemberJoinedContent(LogContent, frozen=True):
    """A user joined the guild. `invite_id`: the invite that the user used; absent if no invite was needed."""

    event_type = "member.joined"
    user_id: Uuid
    username: NameText
    role: Role
    display_name: NameText | None = None
    invite_id: str | None = None
    origin: ServerName | None = None  # the home server of a remote user
    timed_out_until: Timestamp | None = None  # a time-out from an earlier membership (PROTOCOL 5.9.3)


class MemberRoleSetContent(LogContent, frozen=True):
    """A member's role changed. A lower role ends the member's higher roles in channels, and invites (PROTOCOL 5.5.3, 5.6.4)."""

    event_type = "member.role_set"
    user_id: Uuid
    role: Role
    reason: ReasonText | None = None


class MemberTimedOutContent(LogContent, frozen=True):
    """A member was timed out: until `until`, the roles count as viewer at most (PROTOCOL 5.9). Absent: the time-out ended."""

    event_type = "member.timed_out"
    user_id: Uuid
    until: Timestamp | None = None
    reason: ReasonText | None = None


class MemberLeftContent(LogContent, frozen=True):
    """A member left; their roles in channels and their invites ended."""

    event_type = "member.left"
    user_id: Uuid


class MemberRemovedContent(LogContent, frozen=True):
    """A member was removed by the sender; their roles in channels and their invites ended."""

    event_type = "member.removed"
    user_id: Uuid
    reason: ReasonText | None = None


class MemberBannedContent(LogContent, frozen=True):
    """A user was banned and may not join again. For a member, a `member.removed` comes before this event."""

    event_type = "member.banned"
    user_id: Uuid
    username: NameText | None = None  # absent: the server did not know the user
    reason: ReasonText | None = None


class MemberUnbannedContent(LogContent, frozen=True):
    """The ban of a user ended. The user may join again."""

    event_type = "member.unbanned"
    user_id: Uuid
    username: NameText | None = None  # at the time of the ban
    reason: ReasonText | None = None


class InviteCreatedContent(LogContent, frozen=True):
    """An invite was created. The event does not hold its code, because anybody who has the code may join."""

    event_type = "invite.created"
    invite_id: str
    max_uses: InviteUses | None = None
    expires_at: Timestamp | None = None


class InviteDeletedContent(LogContent, frozen=True):
    """An invite was deleted, whether it was used up or not."""

    event_type = "invite.deleted"
    invite_id: str
    reason: ReasonText | None = None


# --- of a user's log -----------------------------------------------------------------------------


class GuildJoinedContent(LogContent, frozen=True):
    """The user joined a guild and can read its log."""

    event_type = "guild.joined"
    guild_id: Uuid
    name: NameText
    role: Role


class GuildLeftContent(LogContent, frozen=True):
    """The user is no longer a member of a guild. `removed`: the sender removed the user."""

    event_type = "guild.left"
    guild_id: Uuid
    removed: bool = False
    reason: ReasonText | None = None


class ChannelRoleGivenContent(LogContent, frozen=True):
    """The user has a role in a channel, as a member of its guild or not."""

    event_type = "channel.role_given"
    channel_id: Uuid
    guild_id: Uuid
    role: Role


class ChannelReadContent(LogContent, frozen=True):
    """The user has read a channel up to this sequence of its log."""

    event_type = "channel.read"
    channel_id: Uuid
    last_read_sequence: Count
    channel_epoch: Epoch = 1


class MentionedContent(LogContent, frozen=True):
    """A message mentions the user."""

    event_type = "mentioned"
    channel_id: Uuid
    message_id: EventId
    message_sequence: Sequence


class ProfileUpdatedContent(LogContent, frozen=True):
    """The user changed the display name; absent: the user removed it."""

    event_type = "profile.updated"
    display_name: NameText | None = None


class DeviceLoggedInContent(LogContent, frozen=True):
    """A device logged in. An earlier session of the same device has ended."""

    event_type = "device.logged_in"
    device_id: DeviceText
    device_name: DeviceText | None = None


class DeviceLoggedOutContent(LogContent, frozen=True):
    """The session of a device ended: the device logged out or was logged out."""

    event_type = "device.logged_out"
    device_id: DeviceText


GUILD_CONTENTS: dict[str, type[LogContent]] = {
    kind.event_type: kind
    for kind in (
        GuildCreatedContent,
        GuildUpdatedContent,
        GuildSuccessorSetContent,
        GuildMovedContent,
        ChannelCreatedContent,
        ChannelUpdatedContent,
        ChannelDeletedContent,
        ChannelRoleSetContent,
        MemberJoinedContent,
        MemberRoleSetContent,
        MemberTimedOutContent,
        MemberLeftContent,
        MemberRemovedContent,
        MemberBannedContent,
        MemberUnbannedContent,
        InviteCreatedContent,
        InviteDeletedContent,
    )
}
"""The contents of a guild's log."""

USER_CONTENTS: dict[str, type[LogContent]] = {
    kind.event_type: kind
    for kind in (
        GuildJoinedContent,
        GuildLeftContent,
        ChannelRoleGivenContent,
        ChannelReadContent,
        MentionedContent,
        ProfileUpdatedContent,
        DeviceLoggedInContent,
        DeviceLoggedOutContent,
    )
}
"""The contents of a user's log."""

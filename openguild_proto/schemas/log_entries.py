"""Builds the log entries of each change. Both stores call it in the transaction of the change.

Entries of a guild's log come before those of a user's: a store locks a log at its first append, so all lock in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from openguild_proto.mirror_records import GuildBan, Handover
from openguild_proto.policy.invites import invite_id
from openguild_proto.records import (
    ChannelRecord,
    GuildRecord,
    InviteRecord,
    MemberRecord,
    ReadState,
    StoredEvent,
    UserRecord,
)
from openguild_proto.schemas.log_contents import (
    ChannelCreatedContent,
    ChannelDeletedContent,
    ChannelReadContent,
    ChannelRoleGivenContent,
    ChannelRoleSetContent,
    ChannelUpdatedContent,
    DeviceLoggedInContent,
    DeviceLoggedOutContent,
    GuildCreatedContent,
    GuildJoinedContent,
    GuildLeftContent,
    GuildMovedContent,
    GuildSuccessorSetContent,
    GuildUpdatedContent,
    InviteCreatedContent,
    InviteDeletedContent,
    LogContent,
    MemberBannedContent,
    MemberJoinedContent,
    MemberLeftContent,
    MemberRemovedContent,
    MemberRoleSetContent,
    MemberTimedOutContent,
    MemberUnbannedContent,
    MentionedContent,
    ProfileUpdatedContent,
)
from openguild_proto.timestamps import from_millis

Entries: TypeAlias = tuple[tuple[str, LogContent], ...]
"""Pairs of (log id, content), to append in this order."""


def guild_created(guild: GuildRecord, owner: MemberRecord) -> Entries:
    """Return the entries for a new guild with its owner as a member."""
    return ((guild.guild_id, GuildCreatedContent(guild.name)), *member_joined(guild, owner))


def guild_renamed(guild: GuildRecord, reason: str | None) -> Entries:
    """Return the entry for a new name of the guild, the one in `guild`."""
    return ((guild.guild_id, GuildUpdatedContent(guild.name, reason)),)


def successor_set(guild_id: str, server: str | None, serial: int) -> Entries:
    """Return the entry for a new successor of the guild, or for its removal."""
    return ((guild_id, GuildSuccessorSetContent(serial, server)),)


def guild_moved(handover: Handover) -> Entries:
    """Return the entry for a new owner server of the guild."""
    lost = handover.kind == "succession"
    return ((handover.guild_id, GuildMovedContent(handover.owner, handover.to, handover.term, lost)),)


def channel_created(channel: ChannelRecord) -> Entries:
    """Return the entry for a new channel."""
    made = ChannelCreatedContent(channel.channel_id, channel.name, channel.topic, channel.position)
    return ((channel.guild_id, made),)


def channel_updated(channel: ChannelRecord, reason: str | None) -> Entries:
    """Return the entry for a changed channel, with its new state."""
    now = ChannelUpdatedContent(channel.channel_id, channel.name, channel.topic, channel.position, reason)
    return ((channel.guild_id, now),)


def channel_deleted(channel: ChannelRecord, reason: str | None) -> Entries:
    """Return the entry for a deleted channel."""
    return ((channel.guild_id, ChannelDeletedContent(channel.channel_id, channel.name, reason)),)


def channel_role_granted(channel: ChannelRecord, user_id: str, role: str) -> Entries:
    """Return the entries for a role in a channel that the operator has given to a user."""
    return (
        (channel.guild_id, ChannelRoleSetContent(channel.channel_id, user_id, role)),
        (user_id, ChannelRoleGivenContent(channel.channel_id, channel.guild_id, role)),
    )


def member_joined(guild: GuildRecord, member: MemberRecord, *, invite_code: str | None = None) -> Entries:
    """Return the entries for a new member. `invite_code`: the invite that they used."""
    used = invite_id(invite_code) if invite_code is not None else None
    until = from_millis(member.timed_out_until_ms) if member.timed_out_until_ms is not None else None
    joined = MemberJoinedContent(
        member.user_id, member.username, member.role, member.display_name, used, member.origin, until
    )
    return ((guild.guild_id, joined), *joined_guild(guild, member))


def joined_guild(guild: GuildRecord, member: MemberRecord) -> Entries:
    """Return the entry of a join in the user's own log."""
    return ((member.user_id, GuildJoinedContent(guild.guild_id, guild.name, member.role)),)


def left_guild(guild_id: str, user_id: str, *, removed: bool, reason: str | None) -> Entries:
    """Return the entry in the user's own log for the end of a membership."""
    return ((user_id, GuildLeftContent(guild_id, removed, reason)),)


def role_set(
    guild_id: str, user_id: str, role: str, *, ended_invites: Iterable[str], reason: str | None = None
) -> Entries:
    """Return the entries for a member's new role. `ended_invites`: the codes of invites that the new role may not create."""
    return ((guild_id, MemberRoleSetContent(user_id, role, reason)), *invites_ended(guild_id, ended_invites))


def timed_out(guild_id: str, user_id: str, until_ms: int | None, reason: str | None) -> Entries:
    """Return the entry for a timeout of a member, or for its end (None)."""
    until = from_millis(until_ms) if until_ms is not None else None
    return ((guild_id, MemberTimedOutContent(user_id, until, reason)),)


def member_gone(
    guild_id: str, user_id: str, *, removed: bool, ended_invites: Iterable[str], reason: str | None
) -> Entries:
    """Return the entries for a user who left or was removed by another member."""
    content = MemberRemovedContent(user_id, reason) if removed else MemberLeftContent(user_id)
    gone = (guild_id, content), *invites_ended(guild_id, ended_invites)
    return (*gone, *left_guild(guild_id, user_id, removed=removed, reason=reason))


def user_banned(guild_id: str, ban: GuildBan, *, was_member: bool, ended_invites: Iterable[str]) -> Entries:
    """Return the entries for a ban. A client that does not know bans sees a member removed (PROTOCOL 6.9.6)."""
    removed = ((guild_id, MemberRemovedContent(ban.user_id, ban.reason)),) if was_member else ()
    banned = (guild_id, MemberBannedContent(ban.user_id, ban.username, ban.reason))
    left = left_guild(guild_id, ban.user_id, removed=True, reason=ban.reason) if was_member else ()
    return (*removed, banned, *invites_ended(guild_id, ended_invites), *left)


def user_unbanned(guild_id: str, ban: GuildBan, reason: str | None) -> Entries:
    """Return the entry for the end of a ban."""
    return ((guild_id, MemberUnbannedContent(ban.user_id, ban.username, reason)),)


def invites_ended(guild_id: str, codes: Iterable[str]) -> Entries:
    """Return the entries for invites that end because their creator lost the right to create them."""
    return tuple((guild_id, InviteDeletedContent(invite_id(code))) for code in sorted(codes))


def invite_created(invite: InviteRecord) -> Entries:
    """Return the entry for a new invite."""
    expires_at = from_millis(invite.expires_at_ms) if invite.expires_at_ms is not None else None
    return ((invite.guild_id, InviteCreatedContent(invite_id(invite.code), invite.max_uses, expires_at)),)


def invite_deleted(invite: InviteRecord, reason: str | None) -> Entries:
    """Return the entry for a deleted invite."""
    return ((invite.guild_id, InviteDeletedContent(invite_id(invite.code), reason)),)


def position_moved(user_id: str, state: ReadState, epoch: int) -> Entries:
    """Return the entry for a user's new read position."""
    return ((user_id, ChannelReadContent(state.channel_id, state.last_read_sequence, epoch)),)


def mentioned(user_ids: Iterable[str], message: StoredEvent) -> Entries:
    """Return the entries for users whom the message mentions. All of them may read it."""
    content = MentionedContent(message.log_id, message.event_id, message.sequence)
    return tuple((user_id, content) for user_id in sorted(user_ids))


def profile_updated(user: UserRecord) -> Entries:
    """Return the entry for a user's new display name."""
    return ((user.user_id, ProfileUpdatedContent(user.display_name)),)


def logged_in(user_id: str, device_id: str, device_name: str | None) -> Entries:
    """Return the entry for a new session of a user's device."""
    return ((user_id, DeviceLoggedInContent(device_id, device_name)),)


def logged_out(user_id: str, device_ids: Iterable[str]) -> Entries:
    """Return the entries for ended sessions of a user's devices."""
    return tuple((user_id, DeviceLoggedOutContent(device_id)) for device_id in sorted(device_ids))

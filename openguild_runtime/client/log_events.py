"""The types of events in guild and user logs, and the table from `event_type` to type (PROTOCOL 6.9, 6.10)."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from openguild_proto.gateway.client_events import Delivered, HintReceived
from openguild_proto.schemas import log_contents as contents
from openguild_proto.schemas.events import RedactedContent, UnknownContent, parse_content, parse_event
from openguild_proto.schemas.frames import TypingUser
from openguild_proto.schemas.presence import MemberPresence
from openguild_runtime.client.events import (
    Event,
    LogEvent,
    MessageEdited,
    MessagePinned,
    MessagePosted,
    MessageRedacted,
    MessageUnpinned,
    PresenceChanged,
    ReactionAdded,
    ReactionRemoved,
    ReactionsCleared,
    TextRedacted,
    UnknownEvent,
    UserTyping,
)
from openguild_runtime.client.messages import Messages


class GuildCreated(LogEvent[contents.GuildCreatedContent]):
    """The guild was created."""


class GuildUpdated(LogEvent[contents.GuildUpdatedContent]):
    """The guild was renamed."""


class GuildSuccessorSet(LogEvent[contents.GuildSuccessorSetContent]):
    """An owner named the server that may take over the guild if its own server is lost."""


class GuildMoved(LogEvent[contents.GuildMovedContent]):
    """The guild has another owner server."""


class ChannelCreated(LogEvent[contents.ChannelCreatedContent]):
    """A channel was created. The client follows it from the start."""


class ChannelUpdated(LogEvent[contents.ChannelUpdatedContent]):
    """The name, topic or position of a channel changed."""


class ChannelDeleted(LogEvent[contents.ChannelDeletedContent]):
    """A channel was deleted with its messages."""


class ChannelRoleSet(LogEvent[contents.ChannelRoleSetContent]):
    """A user was given a role in one channel."""


class MemberJoined(LogEvent[contents.MemberJoinedContent]):
    """A user joined the guild."""


class MemberRoleSet(LogEvent[contents.MemberRoleSetContent]):
    """The role of a member changed."""


class MemberTimedOut(LogEvent[contents.MemberTimedOutContent]):
    """A member was timed out and may only read for a while, or their time-out was ended."""


class MemberLeft(LogEvent[contents.MemberLeftContent]):
    """A member left."""


class MemberRemoved(LogEvent[contents.MemberRemovedContent]):
    """A member was removed."""


class MemberBanned(LogEvent[contents.MemberBannedContent]):
    """A user was banned. If they were a member, MemberRemoved came before."""


class MemberUnbanned(LogEvent[contents.MemberUnbannedContent]):
    """The ban of a user ended."""


class InviteCreated(LogEvent[contents.InviteCreatedContent]):
    """An invite was created."""


class InviteDeleted(LogEvent[contents.InviteDeletedContent]):
    """An invite was deleted."""


class GuildJoined(LogEvent[contents.GuildJoinedContent]):
    """The user joined a guild."""


class GuildLeft(LogEvent[contents.GuildLeftContent]):
    """The user left a guild or was removed from it."""


class ChannelRoleGiven(LogEvent[contents.ChannelRoleGivenContent]):
    """The user was given a role in a channel."""


class ChannelRead(LogEvent[contents.ChannelReadContent]):
    """The user's read position in a channel moved, on any device."""


class Mentioned(LogEvent[contents.MentionedContent]):
    """A message mentions the user."""


class ProfileUpdated(LogEvent[contents.ProfileUpdatedContent]):
    """The user's display name changed."""


class DeviceLoggedIn(LogEvent[contents.DeviceLoggedInContent]):
    """The user logged in on a device."""


class DeviceLoggedOut(LogEvent[contents.DeviceLoggedOutContent]):
    """The session of one of the user's devices ended."""


EVENT_TYPES: dict[str, type[LogEvent[Any]]] = {
    "message": MessagePosted,
    "message.edited": MessageEdited,
    "message.redacted": MessageRedacted,
    "reaction.added": ReactionAdded,
    "reaction.removed": ReactionRemoved,
    "reactions.cleared": ReactionsCleared,
    "message.pinned": MessagePinned,
    "message.unpinned": MessageUnpinned,
    "guild.created": GuildCreated,
    "guild.updated": GuildUpdated,
    "guild.successor_set": GuildSuccessorSet,
    "guild.moved": GuildMoved,
    "channel.created": ChannelCreated,
    "channel.updated": ChannelUpdated,
    "channel.deleted": ChannelDeleted,
    "channel.role_set": ChannelRoleSet,
    "member.joined": MemberJoined,
    "member.role_set": MemberRoleSet,
    "member.timed_out": MemberTimedOut,
    "member.left": MemberLeft,
    "member.removed": MemberRemoved,
    "member.banned": MemberBanned,
    "member.unbanned": MemberUnbanned,
    "invite.created": InviteCreated,
    "invite.deleted": InviteDeleted,
    "guild.joined": GuildJoined,
    "guild.left": GuildLeft,
    "channel.role_given": ChannelRoleGiven,
    "channel.read": ChannelRead,
    "mentioned": Mentioned,
    "profile.updated": ProfileUpdated,
    "device.logged_in": DeviceLoggedIn,
    "device.logged_out": DeviceLoggedOut,
}
"""The type of each `event_type`."""


def log_event(client: Messages, delivered: Delivered) -> LogEvent[Any]:
    """Return a delivered event as its type."""
    event = parse_event(delivered.wire)
    content = parse_content(event)
    match content:
        case UnknownContent():
            return UnknownEvent(client, delivered, event, content)
        case RedactedContent():
            return TextRedacted(client, delivered, event, content)
    return EVENT_TYPES[event.event_type](client, delivered, event, content)


_typing_users = msgspec.json.Decoder(TypingUser)
_presences = msgspec.json.Decoder(MemberPresence)


def event_of_hint(overheard: HintReceived) -> Event | None:
    """Return a typing or presence event, or None for a hint that this client does not know."""
    with suppress(msgspec.ValidationError):
        match overheard.kind:
            case "typing":
                typing_user = _typing_users.decode(overheard.data)
                return UserTyping(overheard.log.partition(":")[2], typing_user.user_id, typing_user.preview)
            case "presence":
                presence = _presences.decode(overheard.data)
                return PresenceChanged(presence.user_id, presence.status)
    return None

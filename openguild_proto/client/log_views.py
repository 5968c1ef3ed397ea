"""The state of a guild and of the user in a client: responses, and the log applied to them (PROTOCOL 7.9.5).

Every event has the new state, not a difference. So the responses may be newer than the place that they name: applying an event
again changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import msgspec

from openguild_proto.schemas.events import parse_content, parse_event
from openguild_proto.schemas.guilds import Channel, Guild, Member
from openguild_proto.schemas.log_contents import (
    ChannelCreatedContent,
    ChannelDeletedContent,
    ChannelReadContent,
    ChannelUpdatedContent,
    DeviceLoggedInContent,
    DeviceLoggedOutContent,
    GuildCreatedContent,
    GuildJoinedContent,
    GuildLeftContent,
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


class SeenChannel(msgspec.Struct):
    """A channel of a guild in a view."""

    name: str
    topic: str | None = None
    position: int = 0


class SeenMember(msgspec.Struct):
    """A member of a guild in a view."""

    username: str
    role: str
    display_name: str | None = None
    timed_out_until: str | None = None  # a time, which may have passed; it has no effect on an owner


class LogView(ABC):
    """Base of the views: applies a log's events in order and once. `head`: the sequence of the last one."""

    def __init__(self, head: int = 0) -> None:
        self.head = head

    def apply(self, sequence: int, wire: bytes | str) -> None:
        """Apply the next event. A repeated event does nothing; a gap raises ValueError."""
        if sequence <= self.head:
            return
        if sequence != self.head + 1:
            raise ValueError(f"event {self.head + 1} is missing")
        self.head = sequence
        content = parse_content(parse_event(wire))
        if isinstance(content, LogContent):
            self._fold(content)

    @abstractmethod
    def _fold(self, content: LogContent) -> None:
        """Apply an event; one that does not concern the view changes nothing."""


class GuildView(LogView):
    """A guild with its channels and members by their ids, the ids of users who are banned, and the names of its invites.

    Begin with `start`, the responses of `GET /guilds/{id}`, `.../channels` and `.../members` in any order, and the lowest
    place that they name; or with an empty view and the log's first event. Display names are those of the responses or of the
    joins, because the guild's log does not report changes of display names (PROTOCOL 7.9.6).
    """

    def __init__(self) -> None:
        super().__init__()
        self.name = ""
        self.channels: dict[str, SeenChannel] = {}
        self.members: dict[str, SeenMember] = {}
        self.banned: set[str] = set()
        self.invites: set[str] = set()

    @classmethod
    def start(cls, head: int, guild: Guild, channels: Iterable[Channel], members: Iterable[Member]) -> GuildView:
        """Return the view of these responses. `head`: the place that the first of them names."""
        view = cls()
        view.head, view.name = head, guild.name
        view.channels = {line.channel_id: SeenChannel(line.name, line.topic, line.position) for line in channels}
        view.members = {
            line.user_id: SeenMember(line.username, line.role, line.display_name, line.timed_out_until)
            for line in members
        }
        return view

    def _fold(self, content: LogContent) -> None:
        match content:
            case GuildCreatedContent(name=name) | GuildUpdatedContent(name=name):
                self.name = name
            case ChannelCreatedContent() | ChannelUpdatedContent():
                self.channels[content.channel_id] = SeenChannel(content.name, content.topic, content.position)
            case ChannelDeletedContent(channel_id=channel_id):
                self.channels.pop(channel_id, None)
            case MemberJoinedContent(user_id=user_id):
                self.members[user_id] = SeenMember(
                    content.username, content.role, content.display_name, content.timed_out_until
                )
            case MemberRoleSetContent(user_id=user_id, role=role) if user_id in self.members:
                self.members[user_id].role = role
            case MemberTimedOutContent(user_id=user_id, until=until) if user_id in self.members:
                self.members[user_id].timed_out_until = until
            case MemberLeftContent(user_id=user_id) | MemberRemovedContent(user_id=user_id):
                self.members.pop(user_id, None)
            case MemberBannedContent(user_id=user_id):
                self.banned.add(user_id)
            case MemberUnbannedContent(user_id=user_id):
                self.banned.discard(user_id)
            case InviteCreatedContent(invite_id=invite_id):
                self.invites.add(invite_id)
            case InviteDeletedContent(invite_id=invite_id):
                self.invites.discard(invite_id)


class UserView(LogView):
    """The user's guilds, read positions by channel, mentions, devices and display name."""

    def __init__(self) -> None:
        super().__init__()
        self.guilds: set[str] = set()
        self.read: dict[str, int] = {}
        self.mentions: list[MentionedContent] = []
        self.devices: set[str] = set()
        self.display_name: str | None = None

    def _fold(self, content: LogContent) -> None:
        match content:
            case GuildJoinedContent(guild_id=guild_id):
                self.guilds.add(guild_id)
            case GuildLeftContent(guild_id=guild_id):
                self.guilds.discard(guild_id)
            case ChannelReadContent(channel_id=channel_id, last_read_sequence=sequence):
                self.read[channel_id] = sequence
            case MentionedContent():
                self.mentions.append(content)
            case DeviceLoggedInContent(device_id=device_id):
                self.devices.add(device_id)
            case DeviceLoggedOutContent(device_id=device_id):
                self.devices.discard(device_id)
            case ProfileUpdatedContent(display_name=display_name):
                self.display_name = display_name

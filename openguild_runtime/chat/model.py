"""The state of the chat: guilds, channels with unread counts, and the messages of the open channel."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from openguild_proto.canonical.event import CanonicalEvent
from openguild_proto.client import TypingUsers, is_temporary
from openguild_proto.client.message_list import MessageList, ShownMessage
from openguild_proto.hints import PresenceStatus
from openguild_runtime.client import (
    ApiError,
    Channel,
    ChannelCreated,
    ChannelDeleted,
    ChannelRead,
    ChannelUpdated,
    Client,
    Connected,
    Event,
    Forbidden,
    GuildLeft,
    GuildUpdated,
    Interrupted,
    LogEvent,
    LogFollowed,
    LogGone,
    MemberJoined,
    MessagePosted,
    NotFound,
    OutcomeUnknown,
    PresenceChanged,
    TextRedacted,
    UserTyping,
)

MENTION = re.compile(r"<@([0-9a-f-]{36})>")
AT_NAME = re.compile(r"(?<!\S)@([^\s@]+?)(?=[.,:;!?)]*(?:\s|$))")


def is_passing(failure: Exception) -> bool:
    """Return whether to retry later: the server is busy or cannot be reached, and the session is still valid."""
    return isinstance(failure, OutcomeUnknown) or (isinstance(failure, ApiError) and is_temporary(failure.status))


class ShownChannel(msgspec.Struct):
    """A channel in the list. `unread` counts messages of others after the read position."""

    channel_id: str
    guild_id: str
    name: str
    unread: int = 0
    latest: int = 0  # sequence up to which `unread` is counted
    head: int = 0  # sequence up to which the channel's events are counted or received


class _GuildReading:
    """A guild whose lists are being read, with the events received meanwhile."""

    def __init__(self, guild_id: str) -> None:
        self.guild_id = guild_id
        self.heard: list[LogEvent[Any]] = []
        self.was_left = False


class ChatModel:
    """The state. Pass the gateway's events to `apply`; `open` a channel to show its messages."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._clock = client.sources.monotonic
        self.user_id = ""
        self.username = ""
        self.guilds: dict[str, str] = {}  # names by ID
        self.channels: dict[str, ShownChannel] = {}
        self.names: dict[str, str] = {}  # shown names of known users, by ID
        self._ids: dict[str, str] = {}  # their IDs, by username in lower case
        self.status = "connecting"
        self.typing_users = TypingUsers()  # in the open channel
        self.online: set[str] = set()
        self._presence_changes: dict[str, bool] | None = None  # while presence is read: the changes received
        self._readings: list[_GuildReading] = []
        self._known_to: dict[str, int] = {}  # by guild: sequence of its log up to which it was listed or received
        self._wanted: set[str] = set()  # guilds to read
        self._counted: list[LogEvent[Any]] | None = None  # messages received while the unread counts are read
        self._wants_unread = False
        self.open_channel: str | None = None
        self.shown: MessageList | None = None
        self._early: list[LogEvent[Any]] | None = None  # events of the open channel, while its messages are read
        self._heard_behind: dict[
            str, tuple[int, int]
        ] = {}  # by log: epoch and sequence after which its events are received
        self._read_up_to = 0  # in the open channel

    async def load(self) -> None:
        """Read guilds, channels, unread counts and presence. Raises ApiError, OutcomeUnknown."""
        me = await self.client.request("GET", "/users/me")
        self.user_id, self.username = me["user_id"], me["username"]
        self.names[self.user_id] = self.username
        for guild in [line async for line in self.client.guilds()]:
            with suppress(NotFound):  # left meanwhile
                await self.load_guild(guild.guild_id)
        await self.read_unread()
        await self.read_presence()

    async def read_unread(self) -> None:
        """Read the unread counts, and add messages received meanwhile. Raises ApiError, OutcomeUnknown."""
        heard = self._counted = list[LogEvent[Any]]()
        try:
            positions = [position async for position in self.client.unread()]
        finally:
            is_last = self._counted is heard
            if is_last:
                self._counted = None
        for position in positions if is_last else ():
            channel = self.channels.get(position.channel_id)
            if channel is not None:
                is_read = channel.channel_id == self.open_channel and self.shown is not None
                channel.unread, channel.latest = 0 if is_read else position.unread, position.latest_sequence
                channel.head = max(channel.head, position.latest_sequence)
        for event in heard if is_last else ():
            self._count(event)

    async def add_guild(self, guild_id: str) -> None:
        """Read a guild, then unread counts and presence. Raises ApiError, OutcomeUnknown."""
        try:
            await self.load_guild(guild_id)
        except NotFound:
            return  # left meanwhile
        except (ApiError, OutcomeUnknown) as failure:
            if is_passing(failure):
                self._wanted.add(guild_id)
            raise
        await self.read_unread()
        await self.read_presence()

    async def load_guild(self, guild_id: str) -> None:
        """Read a guild with its channels and members, and then apply events received meanwhile.

        Raises ApiError, OutcomeUnknown.
        """
        reading = _GuildReading(guild_id)
        self._readings.append(reading)
        try:
            guild = await self.client.request("GET", f"/guilds/{guild_id}")
            head, channels = await self.client.channels_at(guild_id)
            members = [member async for member in self.client.members(guild_id)]
        finally:
            self._readings.remove(reading)
        if reading.was_left:
            return
        self.guilds[guild_id], self._known_to[guild_id] = guild["name"], head
        for channel in channels:
            self.add_channel(channel)
        for member in members:
            self._know(member.user_id, member.username, member.display_name)
        for event in reading.heard:
            self._hear_guild(event)

    def add_channel(self, channel: Channel) -> None:
        """Add a channel to the list, or update its name."""
        shown = ShownChannel(channel.channel_id, channel.guild_id, channel.name)
        self.channels.setdefault(channel.channel_id, shown).name = channel.name

    def guilds_to_add(self) -> list[str]:
        """Return each guild whose lists are unknown or outdated, once, for `add_guild`."""
        wanted, self._wanted = list(self._wanted), set()
        return wanted

    def wants_unread(self) -> bool:
        """Return once whether to call `read_unread`, because messages were neither counted nor received."""
        wants, self._wants_unread = self._wants_unread, False
        return wants

    async def read_presence(self) -> None:
        """Read the presence in all guilds, and apply changes received meanwhile. Raises ApiError, OutcomeUnknown."""
        changes = self._presence_changes = dict[str, bool]()
        online = set[str]()
        try:
            for guild_id in list(self.guilds):
                with suppress(Forbidden, NotFound):  # the server hides presence, or the guild was left meanwhile
                    answer = await self.client.presence(guild_id)
                    online |= {line.user_id for line in answer.members}
                    if answer.shown:  # the own presence is never sent, and the replica may not know it yet
                        online.add(self.user_id)
        finally:
            is_last = self._presence_changes is changes
            if is_last:
                self._presence_changes = None
        if is_last:
            self.online = {user for user in online | changes.keys() if changes.get(user, True)}

    def _know(self, user_id: str, username: str, display_name: str | None) -> None:
        self.names[user_id] = display_name or username
        self._ids[username.lower()] = user_id

    def shown_text(self, text: str) -> str:
        """Return a text with names in place of mentions."""
        return MENTION.sub(lambda found: f"@{self.names.get(found[1], 'somebody')}", text)

    def stored_text(self, written: str) -> str:
        """Return a text with mentions in place of the `@name` of known users (PROTOCOL 6.11.1)."""

        def mention(found: re.Match[str]) -> str:
            user_id = self._ids.get(found[1].lower())
            return found[0] if user_id is None else f"<@{user_id}>"

        return AT_NAME.sub(mention, written)

    @property
    def typing(self) -> str:
        """A text about the users who are typing in the open channel, or ""."""
        names = [self.names.get(user_id, "somebody") for user_id in self.typing_users.writing(self._clock())]
        if not names:
            return ""
        if len(names) == 1:
            return f"{names[0]} is writing"
        return f"{', '.join(names)} are writing" if len(names) <= 3 else "several people are writing"

    def typing_changes_in(self) -> float | None:
        """Return the seconds until `typing` changes without an event, or None."""
        now = self._clock()
        end = self.typing_users.next_end(now)
        return None if end is None else end - now

    async def open(self, channel_id: str) -> None:
        """Show the newest messages of a channel and mark them as read. Of concurrent calls, the last one counts.

        Raises ApiError, OutcomeUnknown.
        """
        self.open_channel, self.shown, self.typing_users, self._read_up_to = channel_id, None, TypingUsers(), 0
        early = self._early = []
        try:
            shown = await self.client.message_list(channel_id, self.user_id)
            if shown.head < self._heard_behind.get(f"channel:{channel_id}", (0, 0))[1]:
                shown = await self.client.message_list(
                    channel_id, self.user_id
                )  # again, because it was read before the events were received
        finally:
            is_last = self._early is early
            if is_last:
                self._early = None
        if is_last and self.open_channel == channel_id:
            for event in early:
                shown.apply(event.sequence, event.wire)
            self.shown = shown
            self.read()

    async def reopen(self) -> None:
        """Open the open channel again, unless its messages are shown. Raises ApiError, OutcomeUnknown."""
        if self.open_channel is not None and self.shown is None:
            await self.open(self.open_channel)

    def note_followed(self, event: LogFollowed) -> bool:
        """Note from where a log's events are received. Return whether the open channel misses events: then call `reopen`."""
        before = self._heard_behind.get(event.log)
        self._heard_behind[event.log] = event.epoch, event.after
        if event.log != f"channel:{self.open_channel}" or self.shown is None:
            return False
        if event.after > self.shown.head or (before is not None and before[0] != event.epoch):
            self.shown = None
        return self.shown is None

    def read(self) -> None:
        """Mark the open channel as read, and send the position to the server soon."""
        if self.open_channel is None or self.shown is None or self.shown.head <= self._read_up_to:
            return
        if self.open_channel in self.channels:  # else it was deleted
            self.channels[self.open_channel].unread = 0
        self._read_up_to = self.shown.head
        self.client.note_read(self.open_channel, self.shown.head)

    def own_last(self) -> ShownMessage | None:
        """Return the newest shown message of the user that is not redacted."""
        return self._last(lambda message: message.author_id == self.user_id)

    def last(self) -> ShownMessage | None:
        """Return the newest shown message that is not redacted."""
        return self._last(lambda message: True)

    def _last(self, wanted: Callable[[ShownMessage], bool]) -> ShownMessage | None:
        messages = reversed(list(self.shown.messages.values())) if self.shown is not None else ()
        return next((message for message in messages if message.text is not None and wanted(message)), None)

    # --- events --------------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Apply an event of the gateway."""
        match event:
            case Connected():
                self.status = "connected"
            case Interrupted(reason=reason, retry_secs=None):
                self.status = f"renewing the session ({reason})"
            case Interrupted(reason=reason, retry_secs=secs):
                self.status = f"reconnecting in {secs:.1f} s ({reason})"
            case PresenceChanged(user_id=user_id, status=status):
                is_online = status is not PresenceStatus.OFFLINE
                (self.online.add if is_online else self.online.discard)(user_id)
                if self._presence_changes is not None:
                    self._presence_changes[user_id] = is_online
            case UserTyping(channel_id=channel_id, user_id=user_id, preview=preview) if channel_id == self.open_channel:
                self.typing_users.signalled(user_id, preview, self._clock())
            case LogFollowed(log=log, after=after, recovered=recovered) if log.startswith("guild:"):
                guild_id = log.removeprefix("guild:")
                if not recovered or after > self._known_to.get(guild_id, -1):
                    self._wanted.add(guild_id)
            case LogFollowed(log=log, after=after, recovered=recovered) if log.startswith("channel:"):
                channel = self.channels.get(log.removeprefix("channel:"))
                if channel is not None and (not recovered or after > channel.head):
                    channel.head, self._wants_unread = after, True
                if not recovered and log == f"channel:{self.open_channel}":
                    self.status = "the server has restored this channel: its newest messages may be missing"
            case LogGone(log=log):
                self._forget(log)
            case LogEvent():
                self._hear_log(event)

    def _hear_guild(self, event: LogEvent[Any]) -> None:
        for reading in self._readings:
            if reading.guild_id == event.log_id:
                reading.heard.append(event)
        if event.log_id not in self.guilds:  # not read yet, or left already
            return
        self._known_to[event.log_id] = max(self._known_to.get(event.log_id, 0), event.sequence)
        match event:
            case GuildUpdated(content=content):
                self.guilds[event.log_id] = content.name
            case ChannelCreated(content=content) | ChannelUpdated(content=content):
                channel = self.channels.setdefault(
                    content.channel_id, ShownChannel(content.channel_id, event.log_id, content.name)
                )
                channel.name = content.name
            case ChannelDeleted(content=content):
                self._forget(f"channel:{content.channel_id}")
            case MemberJoined(content=content):
                self._know(content.user_id, content.username, content.display_name)

    def _hear_log(self, event: LogEvent[Any]) -> None:
        if event.log.startswith("guild:"):
            self._hear_guild(event)
        if event.log.startswith("channel:") and event.log_id in self.channels:
            self.channels[event.log_id].head = event.sequence
        match event:
            case GuildLeft(content=content):
                self._forget(f"guild:{content.guild_id}")
            case ChannelRead(content=content) if content.channel_id in self.channels:
                channel = self.channels[content.channel_id]
                if content.last_read_sequence >= channel.latest:
                    channel.unread = 0
            case MessagePosted():
                self.names.setdefault(event.author.id, event.author.username)
                self._count(event)
            case TextRedacted(event=CanonicalEvent(event_type="message")):
                self._count(event)
        if event.log != f"channel:{self.open_channel}":
            return
        if self.shown is not None:
            self.shown.apply(event.sequence, event.wire)
        elif self._early is not None:
            self._early.append(event)
        if event.event.event_type == "message":
            self.typing_users.posted(event.event.sender)

    def _count(self, message: LogEvent[Any]) -> None:
        """Count a message of others as unread, even if it was redacted (PROTOCOL 7.7.3)."""
        if self._counted is not None:
            self._counted.append(message)
        channel = self.channels.get(message.log_id)
        if channel is not None and message.sequence > channel.latest:
            channel.latest = message.sequence
            channel.unread += message.log_id != self.open_channel and message.event.sender != self.user_id

    def _forget(self, log: str) -> None:
        kind, _, log_id = log.partition(":")
        if kind == "channel":
            self.channels.pop(log_id, None)
            if log_id == self.open_channel:
                self.open_channel = self.shown = None
        elif kind == "guild":
            self.guilds.pop(log_id, None)
            self._known_to.pop(log_id, None)
            self._wanted.discard(log_id)
            for reading in self._readings:
                reading.was_left = reading.was_left or reading.guild_id == log_id
            for channel in [channel for channel in self.channels.values() if channel.guild_id == log_id]:
                self._forget(f"channel:{channel.channel_id}")

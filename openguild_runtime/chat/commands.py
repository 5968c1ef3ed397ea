"""Runs a line of the user: a message, or a command that begins with a slash."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping

from openguild_proto.client.message_list import ShownMessage
from openguild_proto.schemas.decode import parse_uuid
from openguild_runtime.chat.model import ChatModel
from openguild_runtime.client import OutcomeUnknown

HELP = """/guild NAME      make a guild      /channel NAME   make a channel
/invite          show a code       /join INVITE    a code or a link
/reply N TEXT    answer            /react [N] EMOJI
/edit TEXT       your last one     /delete [N] [WHY]
/pin N           pin, or unpin     /clear N [EMOJI]
/search WORDS    find messages     /members
/role NAME ROLE  change a role     /kick NAME [WHY]
/timeout NAME MINUTES [WHY]        only lets them read; 0 ends it
/ban NAME [WHY]  ban a member      /unban NAME [WHY]
/bans            list the bans     /leave          leave the guild
/password        change yours
@NAME mentions. N: the number before a message; [N]: or the last one"""
_USAGE = {found[1]: found[0] for found in re.finditer(r"/(\w+)(?: (?:[A-Z]+|\[[A-Z]+\]))*", HELP)}


class NoCommand(Exception):
    """A line cannot be run. The text is the reason."""


class Commands:
    """The commands. `show` shows a text until the next one. `change_password` opens a screen that hides the passwords."""

    def __init__(
        self, model: ChatModel, show: Callable[[str], None], change_password: Callable[[], None] = lambda: None
    ) -> None:
        self._model = model
        self._show = show
        self._change_password = change_password
        self._unsettled: tuple[str, str, str | None] | None = None  # the last post, if its outcome is unknown
        self._nonce: str | None = None
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "help": self._help, "guild": self._guild, "channel": self._channel, "invite": self._invite, "join": self._join,
            "reply": self._reply, "edit": self._edit, "delete": self._delete, "react": self._react, "pin": self._pin,
            "clear": self._clear, "search": self._search, "members": self._members, "role": self._role,
            "kick": self._kick, "timeout": self._timeout, "ban": self._ban, "unban": self._unban, "bans": self._bans,
            "leave": self._leave, "password": self._password,
        }  # fmt: skip

    async def do(self, line: str) -> None:
        """Run a line. Raises NoCommand, ApiError, OutcomeUnknown."""
        self._show("")
        if not line.startswith("/"):
            await self._post(line, None)
            return
        name, _, argument = line[1:].partition(" ")
        command = self._commands.get(name)
        if command is None:
            raise NoCommand(f"/{name} is not a command: /help lists them")
        usage = _USAGE.get(name, "")
        if len(argument.split()) < sum(word.isalpha() for word in usage.split()):
            raise NoCommand(f"write {usage}")
        await command(argument.strip())

    def _open(self) -> str:
        if self._model.open_channel is None:
            raise NoCommand("no channel is open: create a guild with /guild NAME or join one with /join CODE")
        return self._model.open_channel

    def _guild_id(self) -> str:
        channel = self._model.channels.get(self._open())
        if channel is None:  # it has just been created or deleted
            raise NoCommand("the guild of this channel is unknown: choose another channel")
        return channel.guild_id

    def _numbered(self, number: str) -> ShownMessage:
        shown = self._model.shown
        found = (message for message in shown.messages.values() if str(message.sequence) == number) if shown else ()
        message = next(iter(found), None)
        if message is None:
            raise NoCommand(f"there is no message with the number {number!r}")
        return message

    async def _help(self, argument: str) -> None:
        self._show("help")

    async def _password(self, argument: str) -> None:
        if argument:
            raise NoCommand("write /password alone: it asks for the passwords and hides them")
        self._change_password()

    async def _guild(self, name: str) -> None:
        guild = await self._model.client.create_guild(name)
        channel = await self._model.client.create_channel(guild.guild_id, "general")
        await self._model.add_guild(guild.guild_id)
        await self._model.open(channel.channel_id)
        await self._invite("")

    async def _channel(self, name: str) -> None:
        channel = await self._model.client.create_channel(self._guild_id(), name)
        self._model.add_channel(channel)
        await self._model.open(channel.channel_id)

    async def _invite(self, argument: str) -> None:
        invite = await self._model.client.create_invite(self._guild_id())
        self._show(f"others join with: /join {invite.code}")

    async def _join(self, invite: str) -> None:
        member = await self._model.client.accept_invite(invite)
        await self._model.add_guild(member.guild_id)
        channels = [one for one in self._model.channels.values() if one.guild_id == member.guild_id]
        if channels:
            await self._model.open(channels[0].channel_id)

    async def _reply(self, argument: str) -> None:
        number, _, text = argument.partition(" ")
        answered = self._numbered(number)
        await self._post(text, answered.event_id)

    async def _post(self, text: str, reply_to: str | None) -> None:
        """Post a message. If it repeats a post with unknown outcome, the nonce is the same, so that it is stored once."""
        post = self._open(), self._model.stored_text(text), reply_to
        nonce = self._nonce if self._unsettled == post else None
        self._unsettled = None
        try:
            await self._model.client.post(post[0], post[1], reply_to=reply_to, nonce=nonce)
        except OutcomeUnknown as unknown:
            self._unsettled, self._nonce = post, unknown.nonce
            raise

    async def _edit(self, text: str) -> None:
        own = self._model.own_last()
        if own is None:
            raise NoCommand("none of your messages is on the screen")
        await self._model.client.edit(self._open(), own.event_id, self._model.stored_text(text))

    async def _delete(self, argument: str) -> None:
        number, _, reason = argument.partition(" ")
        message = self._numbered(number) if number else self._model.own_last()
        if message is None:
            raise NoCommand("none of your messages is on the screen")
        await self._model.client.redact(self._open(), message.event_id, reason.strip() or None)

    async def _react(self, argument: str) -> None:
        number, _, emoji = argument.rpartition(" ")
        message = self._numbered(number) if number else self._model.last()
        if message is None:
            raise NoCommand("no message is on the screen")
        reaction = message.reactions.get(emoji)
        change = self._model.client.unreact if reaction is not None and reaction.me else self._model.client.react
        await change(self._open(), message.event_id, emoji)

    async def _pin(self, number: str) -> None:
        message = self._numbered(number)
        change = self._model.client.unpin if message.pinned else self._model.client.pin
        await change(self._open(), message.event_id)

    async def _clear(self, argument: str) -> None:
        number, _, emoji = argument.partition(" ")
        message = self._numbered(number)
        await self._model.client.clear_reactions(self._open(), message.event_id, emoji or None)

    async def _search(self, words: str) -> None:
        found = await self._model.client.search(words, limit=5)
        lines = [f"#{hit.subtitle} {hit.sequence} {hit.title}: {self._model.shown_text(hit.snippet)}" for hit in found]
        self._show("   ".join(lines) or f"no message contains {words!r}")

    async def _members(self, argument: str) -> None:
        members = [member async for member in self._model.client.members(self._guild_id())]
        online = self._model.online
        names = [
            f"{one.display_name or one.username}{' *' if one.user_id in online else ''} ({one.role})" for one in members
        ]
        self._show(", ".join(names))

    async def _member(self, argument: str) -> tuple[str, str, str]:
        """Return the guild, the member that `argument` names, and the words after the name."""
        guild_id = self._guild_id()
        members = {one.user_id: one.username async for one in self._model.client.members(guild_id)}
        user_id, rest = whom(argument, members)
        return guild_id, user_id, rest or ""

    async def _role(self, argument: str) -> None:
        guild_id, user_id, role = await self._member(argument)
        member = await self._model.client.set_role(guild_id, user_id, role)
        self._show(f"{member.username} is {member.role} now")

    async def _kick(self, argument: str) -> None:
        guild_id, user_id, reason = await self._member(argument)
        await self._model.client.remove_member(guild_id, user_id, reason or None)
        self._show("removed: another invite lets them join again")

    async def _timeout(self, argument: str) -> None:
        guild_id, user_id, rest = await self._member(argument)
        minutes, _, reason = rest.partition(" ")
        if not (minutes.isascii() and minutes.isdigit()):
            raise NoCommand(f"write {_USAGE['timeout']}")
        if int(minutes) == 0:
            await self._model.client.end_timeout(guild_id, user_id, reason or None)
            self._show("the time-out has ended")
        else:
            member = await self._model.client.time_out(guild_id, user_id, int(minutes) * 60, reason or None)
            self._show(f"{member.username} is timed out until {member.timed_out_until}")

    async def _leave(self, argument: str) -> None:
        await self._model.client.leave_guild(self._guild_id())

    async def _ban(self, argument: str) -> None:
        guild_id, client = self._guild_id(), self._model.client
        user_id, reason = whom(argument, {one.user_id: one.username async for one in client.members(guild_id)})
        ban = await client.ban_member(guild_id, user_id, reason)
        self._show(f"{ban.username or ban.user_id} is banned: /unban lets them join again")

    async def _unban(self, argument: str) -> None:
        guild_id, client = self._guild_id(), self._model.client
        named = {ban.user_id: ban.username or ban.user_id async for ban in client.bans(guild_id)}
        user_id, reason = whom(argument, named)
        await client.unban_member(guild_id, user_id, reason)
        self._show(f"{named.get(user_id, user_id)} may join again")

    async def _bans(self, argument: str) -> None:
        bans = [ban async for ban in self._model.client.bans(self._guild_id())]
        lines = [f"{ban.username or ban.user_id}{f' ({ban.reason})' if ban.reason else ''}" for ban in bans]
        self._show(", ".join(lines) or "nobody is banned")


def whom(argument: str, named: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the user whose name or ID `argument` begins with, and the words after it. The longest name counts.

    `named` has user names by ID; names may contain spaces. Raises NoCommand if no user matches, or more than one.
    """
    words = argument.removeprefix("@").split()
    for count in range(len(words), 0, -1):
        name, rest = " ".join(words[:count]).casefold(), " ".join(words[count:])
        found = [user_id for user_id, username in named.items() if username.casefold() == name]
        if len(found) > 1:
            raise NoCommand(f"{len(found)} members have the name {name!r}: write the id, {' or '.join(sorted(found))}")
        if found:
            return found[0], rest or None
    user_id = parse_uuid(words[0]) if words else None
    if user_id is None:
        raise NoCommand(f"nobody here has the name {argument!r}")
    return user_id, " ".join(words[1:]) or None

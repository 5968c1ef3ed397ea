"""Chooses the logs that a client follows so that its user misses nothing: their own, their guilds' and their channels'.

Source: PROTOCOL 15.9.4. Call `opened`, `followed`, `delivered` and `gone` with the events of the gateway client. After each call,
list the channels of every guild that `next_listing` returns and pass them to `listed`; if `wants_guilds`, list the guilds and
pass them to `joined`.

A guild's channels are listed when the client is up to date with the guild's log, and the response is used when the log has
reached the position in it. So a channel created while the client was away is followed from its beginning. The guilds are listed
again when the user's own log restarts. The server sends `gone` for logs that end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from openguild_proto.errors import LocalProtocolError
from openguild_proto.gateway.client import GatewayClient
from openguild_proto.gateway.client_events import Delivered, Followed
from openguild_proto.gateway.client_logs import BEGINNING, ResumePosition
from openguild_proto.gateway.frames import Ready
from openguild_proto.schemas.events import parse_content, parse_event
from openguild_proto.schemas.log_contents import (
    ChannelCreatedContent,
    ChannelRoleGivenContent,
    GuildJoinedContent,
    GuildLeftContent,
)


class _GuildLog:
    """A guild whose log is followed. `level_at`: the sequence at which its channels are listed; None: not known yet."""

    __slots__ = ("known", "level_at", "listing")

    def __init__(self) -> None:
        self.known = False  # its channels are known, from a list and the events after it
        self.level_at: int | None = None
        # a list that waits until the log has reached its head: (head, channel ids)
        self.listing: tuple[int, tuple[str, ...]] | None = None


class AccountLogs:
    """Follows the logs with `gateway`: from its stored positions, else from the first connection on.

    `skipped`: logs beyond the MAX_GATEWAY_LOGS of a socket. They are not followed.
    """

    def __init__(self, gateway: GatewayClient) -> None:
        self.skipped: set[str] = set()
        self._gateway = gateway
        self._guilds: dict[str, _GuildLog] = {}
        self._listings: deque[str] = deque()
        self._wants_guilds = False
        # Channel logs that are followed because of a list, from now on, and have had no event yet.
        self._listed: set[str] = set()

    def next_listing(self) -> str | None:
        """Remove and return the id of a guild whose channels to list (`GET /guilds/{id}/channels`, all pages), or None."""
        return self._listings.popleft() if self._listings else None

    def wants_guilds(self) -> bool:
        """Return whether to list the guilds (`GET /guilds`, all pages). True once per request."""
        wants, self._wants_guilds = self._wants_guilds, False
        return wants

    # --- input ---------------------------------------------------------------------------------------

    def opened(self, ready: Ready) -> None:
        """Handle an authenticated connection. `ready` has the guilds, and the heads of the logs at that time."""
        places = {line.log: ResumePosition(line.epoch, line.head) for line in ready.heads}
        own = f"user:{ready.user.user_id}"
        self._follow(own, places.get(own))
        joined = {guild.guild_id for guild in ready.guilds}
        for guild_id in self._guilds.keys() - joined:
            del self._guilds[guild_id]
        for guild_id in joined:
            self._join(guild_id, places.get(f"guild:{guild_id}"))

    def followed(self, event: Followed) -> None:
        """Handle that a log is followed."""
        kind, log_id = _split(event.log)
        if kind == "user" and not event.recovered:  # its earlier events are not known
            self._wants_guilds = True
        if kind == "guild" and (guild := self._guilds.get(log_id)) is not None:
            if not guild.known or not event.recovered:
                guild.level_at = event.head
            self._moved(log_id, guild, event.after)

    def delivered(self, event: Delivered) -> None:
        """Handle the next event of a log."""
        kind, log_id = _split(event.log)
        self._listed.discard(event.log)
        if kind == "channel":
            return
        match parse_content(parse_event(event.wire)):
            case GuildJoinedContent(guild_id=guild_id):
                self._join(guild_id)
            case GuildLeftContent(guild_id=guild_id):
                self._guilds.pop(guild_id, None)
            case ChannelRoleGivenContent(channel_id=channel_id):
                self._follow(f"channel:{channel_id}")
            case ChannelCreatedContent(channel_id=channel_id):
                log = f"channel:{channel_id}"
                if log in self._listed:  # by a list that is newer than this event
                    self._listed.discard(log)
                    self._gateway.follow(log, BEGINNING)
                self._follow(log, BEGINNING)
        if kind == "guild" and (guild := self._guilds.get(log_id)) is not None:
            self._moved(log_id, guild, event.sequence)

    def gone(self, log: str) -> None:
        """Handle that a log cannot be followed, or no longer."""
        self._listed.discard(log)
        kind, log_id = _split(log)
        if kind == "guild":
            self._guilds.pop(log_id, None)

    def joined(self, guild_ids: Iterable[str]) -> None:
        """Follow the user's guilds. Guilds that are not listed stay: their own logs report their end."""
        for guild_id in guild_ids:
            self._join(guild_id)

    def listed(self, guild_id: str, head: int, channel_ids: Iterable[str]) -> None:
        """Handle a guild's list of channels. `head`: `X-OpenGuild-Head` of the first page."""
        guild = self._guilds.get(guild_id)
        if guild is not None:
            guild.listing = head, tuple(channel_ids)
            place = self._gateway.places.get(f"guild:{guild_id}")
            self._moved(guild_id, guild, place.sequence if place is not None else 0)

    # --- the logs ------------------------------------------------------------------------------------

    def _moved(self, guild_id: str, guild: _GuildLog, sequence: int) -> None:
        """Handle that the guild's log was delivered up to `sequence`."""
        if guild.level_at is not None and sequence >= guild.level_at:
            guild.level_at = None
            self._listings.append(guild_id)
        if guild.listing is not None and sequence >= guild.listing[0]:
            logs = [f"channel:{channel_id}" for channel_id in guild.listing[1]]
            self._listed.update(log for log in logs if not self._gateway.follows(log) and self._follow(log))
            guild.listing, guild.known = None, True

    def _join(self, guild_id: str, place: ResumePosition | None = None) -> None:
        if guild_id not in self._guilds and self._follow(f"guild:{guild_id}", place):
            self._guilds[guild_id] = _GuildLog()

    def _follow(self, log: str, place: ResumePosition | None = None) -> bool:
        """Follow a log unless it is followed already. Return False beyond the limit."""
        if self._gateway.follows(log):
            return True
        try:
            self._gateway.follow(log, place)
        except LocalProtocolError:  # beyond the limit
            self.skipped.add(log)
            return False
        return True


def _split(log: str) -> tuple[str, str]:
    kind, _, log_id = log.partition(":")
    return kind, log_id

"""Typed methods for the most frequent calls. Use `Client.request` for all other routes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from openguild_proto.client import ClientResponse, invite_code
from openguild_proto.limits import DEFAULT_PAGE_EVENTS, MAX_PAGE_EVENTS
from openguild_proto.operations.epochs import LOG_HEAD
from openguild_proto.schemas.guilds import Ban, Channel, Guild, Invite, Member
from openguild_proto.schemas.presence import GuildPresence
from openguild_runtime.client.subscription import ChannelEvent
from openguild_runtime.client.transport import decode_answer

T = TypeVar("T")


class Api(ABC):
    """Methods built on `send`. All raise ApiError and OutcomeUnknown. They are retried, and take effect once.

    Only `change_password` and `delete_account` are not retried.
    """

    __slots__ = ()

    @abstractmethod
    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        authorized: bool = True,
        repeatable: bool | None = None,
        key: str | None = None,
    ) -> ClientResponse:
        """Send one request and return its response. `repeatable`: it may be sent twice; by default true for GET.

        `key`: all attempts carry it, so that the request is done exactly once.
        """

    @abstractmethod
    def new_key(self) -> str:
        """Return a key for one request that must be done once."""

    # --- the account --------------------------------------------------------------------------------

    async def change_password(self, current: str, new: str) -> None:
        """Change the password; all other devices are logged out. Raises Forbidden `wrong_password`: `current` is not the password.

        It is not retried. After OutcomeUnknown, or an ApiError with a status of 500 or above, call it with `new` for both: it
        returns if the change was made, and raises Forbidden `wrong_password` if not.
        """
        body = {"current_password": current, "new_password": new}
        await self.send("POST", "/users/@me/password", body)

    async def delete_account(self, password: str) -> None:
        """Delete the account permanently. Raises Forbidden `wrong_password`, or Conflict `last_owner`: a guild has no other owner.

        It is not retried. After OutcomeUnknown call it again: Unauthorized means that the account is deleted.
        """
        await self.send("POST", "/users/@me/delete", {"current_password": password})

    # --- guilds, channels, invites -----------------------------------------------------------------

    async def create_guild(self, name: str) -> Guild:
        """Create a guild, owned by the caller."""
        return await self._post_for(Guild, "/guilds", {"name": name})

    def guilds(self) -> AsyncIterator[Guild]:
        """Iterate over the caller's guilds."""
        return self.list_items(Guild, "/guilds")

    def channels(self, guild_id: str) -> AsyncIterator[Channel]:
        """Iterate over the channels of a guild."""
        return self.list_items(Channel, f"/guilds/{guild_id}/channels")

    async def channels_at(self, guild_id: str) -> tuple[int, list[Channel]]:
        """Return the channels of a guild, and a sequence of its log that they reflect at least (PROTOCOL 7.9.5)."""
        path, after, found = f"/guilds/{guild_id}/channels?limit=200", "", list[Channel]()
        head: int | None = None
        while True:
            page = await self.send("GET", path + after)
            found += decode_answer(page.body, list[Channel])
            head = int(page.header(LOG_HEAD.lower()) or 0) if head is None else head
            next_after = page.header("x-next-after")
            if next_after is None:
                return head, found
            after = "&" + urlencode({"after": next_after})

    def members(self, guild_id: str) -> AsyncIterator[Member]:
        """Iterate over the members of a guild."""
        return self.list_items(Member, f"/guilds/{guild_id}/members")

    async def presence(self, guild_id: str) -> GuildPresence:
        """Return the members of a guild who are not offline."""
        return decode_answer((await self.send("GET", f"/guilds/{guild_id}/presence")).body, GuildPresence)

    async def ban_member(self, guild_id: str, user_id: str, reason: str | None = None) -> Ban:
        """Ban a user from a guild, as a moderator, and remove them if they are a member. An existing ban stays as it is.

        They cannot join until the ban ends: their `accept_invite` raises Forbidden with the code `banned`.
        """
        answer = await self.send("PUT", _ban_path(guild_id, user_id, reason), repeatable=True)
        return decode_answer(answer.body, Ban)

    async def unban_member(self, guild_id: str, user_id: str, reason: str | None = None) -> None:
        """End the ban of a user, as a moderator. Raises NotFound if there is none."""
        await self.send("DELETE", _ban_path(guild_id, user_id, reason))

    def bans(self, guild_id: str) -> AsyncIterator[Ban]:
        """Iterate over the bans of a guild, oldest first, as a moderator."""
        return self.list_items(Ban, f"/guilds/{guild_id}/bans")

    async def time_out(self, guild_id: str, user_id: str, secs: int, reason: str | None = None) -> Member:
        """As a moderator, let a member only read for `secs`. This replaces an existing time-out."""
        path = _timeout_path(guild_id, user_id, reason)
        answer = await self.send("PUT", path, {"secs": secs}, repeatable=True)
        return decode_answer(answer.body, Member)

    async def end_timeout(self, guild_id: str, user_id: str, reason: str | None = None) -> None:
        """As a moderator, end a member's time-out early. Raises NotFound if there is none."""
        await self.send("DELETE", _timeout_path(guild_id, user_id, reason))

    async def create_channel(self, guild_id: str, name: str) -> Channel:
        """Create a channel in a guild, as a maintainer or above."""
        return await self._post_for(Channel, f"/guilds/{guild_id}/channels", {"name": name})

    async def create_invite(
        self, guild_id: str, *, max_uses: int | None = None, expires_in_secs: int | None = None
    ) -> Invite:
        """Create an invite to a guild; pass its `code` to `accept_invite`. None: any number of uses, and no expiry."""
        body = {"max_uses": max_uses, "expires_in_secs": expires_in_secs}
        return await self._post_for(Invite, f"/guilds/{guild_id}/invites", body)

    async def accept_invite(self, invite: str) -> Member:
        """Join a guild by the code or the link of an invite. A member keeps their role."""
        return await self._post_for(
            Member, f"/invites/{quote(invite_code(invite), safe='@', errors='surrogatepass')}/accept", None
        )

    # --- the log -----------------------------------------------------------------------------------

    async def events(
        self,
        channel_id: str,
        *,
        since: int | None = None,
        epoch: int | None = None,
        before: int | None = None,
        limit: int = DEFAULT_PAGE_EVENTS,
    ) -> list[ChannelEvent]:
        """Return one page, oldest first: the events after `since`, or the newest before `before`.

        Both bounds are exclusive, and only one may be given. `epoch`: the log's epoch that `since` belongs to
        (`Channel.epoch`); 400 `invalid_since` if the channel has another one by now. 503 `guild_offline`: only the owner server
        of the guild has these events, and it cannot be reached.
        """
        bounds = {"since": since, "epoch": epoch, "before": before, "limit": limit}
        query = urlencode({name: value for name, value in bounds.items() if value is not None})
        answer = await self.send("GET", f"/channels/{channel_id}/events?{query}")
        return decode_answer(answer.body, list[ChannelEvent])

    async def history(self, channel_id: str, since: int = 0) -> AsyncIterator[ChannelEvent]:
        """Iterate over the log after `since`, page by page, to its current end.

        Raises ApiError as `events`, also between pages: continue then with the `since` of the last event.
        """
        while page := await self.events(channel_id, since=since, limit=MAX_PAGE_EVENTS):
            for event in page:
                yield event
            since = page[-1].sequence

    # --- lists -------------------------------------------------------------------------------------

    async def list_items(self, kind: type[T], path: str) -> AsyncIterator[T]:
        """Iterate over all items of a list such as `/guilds`, over all its pages (X-Next-After)."""
        answer = await self.send("GET", path)
        while True:
            page: list[T] = decode_answer(answer.body, list[kind])  # type: ignore[valid-type]  # `kind` is a value here
            for line in page:
                yield line
            after = answer.header("x-next-after")
            if after is None:
                return
            separator = "&" if "?" in path else "?"
            answer = await self.send("GET", path + separator + urlencode({"after": after}))

    async def _post_for(self, kind: type[T], path: str, body: Any) -> T:
        answer = await self.send("POST", path, body, key=self.new_key())
        return decode_answer(answer.body, kind)


def _ban_path(guild_id: str, user_id: str, reason: str | None) -> str:
    return f"/guilds/{guild_id}/bans/{user_id}{_because(reason)}"


def _timeout_path(guild_id: str, user_id: str, reason: str | None) -> str:
    return f"/guilds/{guild_id}/members/{user_id}/timeout{_because(reason)}"


def _because(reason: str | None) -> str:
    return "" if reason is None else "?" + urlencode({"reason": reason}, errors="surrogatepass")

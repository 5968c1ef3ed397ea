"""Typed methods for the most frequent calls. Use `Client.request` for all other routes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from openguild_proto.client import ClientResponse, invite_code
from openguild_proto.limits import DEFAULT_PAGE_EVENTS, MAX_PAGE_EVENTS
from openguild_proto.operations.epochs import LOG_HEAD
from openguild_proto.schemas.accounts import Me, Profile
from openguild_proto.schemas.guilds import Ban, Channel, Guild, Invite, Member
from openguild_proto.schemas.presence import GuildPresence
from openguild_runtime.client.subscription import ChannelEvent
from openguild_runtime.client.transport import decode_answer

T = TypeVar("T")


class Api(ABC):
    """Methods built on `send`. All raise ApiError and OutcomeUnknown. They are retried, and create things exactly once.

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
        """Send one request and return its response. A `repeatable` request may be sent twice; the default is GET requests only.

        `key` is the idempotency key of all attempts, by which the request is performed exactly once.
        """

    @abstractmethod
    def new_key(self) -> str:
        """Return a new idempotency key, for one request."""

    # --- the account --------------------------------------------------------------------------------

    async def me(self) -> Me:
        """Return the caller's account, roles and memberships."""
        return decode_answer((await self.send("GET", "/users/me")).body, Me)

    async def set_display_name(self, name: str) -> Profile:
        """Set the name that others see. An empty name removes it, and others see the username."""
        answer = await self.send("PATCH", "/users/@me", {"display_name": name}, repeatable=True)
        return decode_answer(answer.body, Profile)

    async def change_password(self, current: str, new: str) -> None:
        """Change the password and log out all other devices. Raises Forbidden `wrong_password` if `current` is wrong.

        The request is not retried. After OutcomeUnknown, or an ApiError with a status of 500 or more, call this with `new` for
        both: it returns if the password was changed, and raises Forbidden `wrong_password` if not.
        """
        body = {"current_password": current, "new_password": new}
        await self.send("POST", "/users/@me/password", body)

    async def delete_account(self, password: str) -> None:
        """Delete the account. Raises Forbidden `wrong_password`, and Conflict `last_owner` if a guild has no other owner.

        The request is not retried. After OutcomeUnknown call this again: Unauthorized means that the account is deleted.
        """
        await self.send("POST", "/users/@me/delete", {"current_password": password})

    # --- guilds, channels, invites -----------------------------------------------------------------

    async def create_guild(self, name: str) -> Guild:
        """Create a guild, owned by the caller."""
        return await self._post_for(Guild, "/guilds", {"name": name})

    def guilds(self) -> AsyncIterator[Guild]:
        """Iterate over the caller's guilds."""
        return self.list_items(Guild, "/guilds")

    async def rename_guild(self, guild_id: str, name: str) -> Guild:
        """Rename a guild, as a moderator or above."""
        answer = await self.send("PATCH", f"/guilds/{guild_id}", {"name": name}, repeatable=True)
        return decode_answer(answer.body, Guild)

    async def delete_guild(self, guild_id: str) -> None:
        """Delete a guild with its channels and messages, as an admin or above."""
        await self.send("DELETE", f"/guilds/{guild_id}")

    async def leave_guild(self, guild_id: str) -> None:
        """Leave a guild. Raises Conflict `last_owner` if the caller is its only owner."""
        await self.send("DELETE", f"/guilds/{guild_id}/members/@me")

    def channels(self, guild_id: str) -> AsyncIterator[Channel]:
        """Iterate over the channels of a guild."""
        return self.list_items(Channel, f"/guilds/{guild_id}/channels")

    async def channels_at(self, guild_id: str) -> tuple[int, list[Channel]]:
        """Return a sequence of the guild's log, and its channels as of that sequence or later (PROTOCOL 7.9.5)."""
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

    async def set_role(self, guild_id: str, user_id: str, role: str, reason: str | None = None) -> Member:
        """Give a member of a lower rank another role, at most the caller's own, as a moderator or above."""
        path = f"/guilds/{guild_id}/members/{user_id}{_because(reason)}"
        answer = await self.send("PUT", path, {"role": role}, repeatable=True)
        return decode_answer(answer.body, Member)

    async def remove_member(self, guild_id: str, user_id: str, reason: str | None = None) -> None:
        """Remove a member of a lower rank, as a moderator or above. They can join again by another invite."""
        await self.send("DELETE", f"/guilds/{guild_id}/members/{user_id}{_because(reason)}")

    async def presence(self, guild_id: str) -> GuildPresence:
        """Return the members of a guild who are not offline."""
        return decode_answer((await self.send("GET", f"/guilds/{guild_id}/presence")).body, GuildPresence)

    async def ban_member(self, guild_id: str, user_id: str, reason: str | None = None) -> Ban:
        """Ban a user from a guild, as a moderator, and remove them if they are a member. An existing ban is kept.

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
        """Let a member only read for `secs`, as a moderator. Replaces an earlier time-out."""
        path = _timeout_path(guild_id, user_id, reason)
        answer = await self.send("PUT", path, {"secs": secs}, repeatable=True)
        return decode_answer(answer.body, Member)

    async def end_timeout(self, guild_id: str, user_id: str, reason: str | None = None) -> None:
        """Remove a member's time-out, as a moderator. Raises NotFound if there is none."""
        await self.send("DELETE", _timeout_path(guild_id, user_id, reason))

    async def create_channel(self, guild_id: str, name: str) -> Channel:
        """Create a channel in a guild, as a maintainer of it or above."""
        return await self._post_for(Channel, f"/guilds/{guild_id}/channels", {"name": name})

    async def change_channel(
        self, channel_id: str, *, name: str | None = None, topic: str | None = None, position: int | None = None
    ) -> Channel:
        """Change the given members of a channel, as a moderator or above. An empty `topic` removes it."""
        given = {"name": name, "topic": topic, "position": position}
        change = {member: value for member, value in given.items() if value is not None}
        answer = await self.send("PATCH", f"/channels/{channel_id}", change, repeatable=True)
        return decode_answer(answer.body, Channel)

    async def delete_channel(self, channel_id: str) -> None:
        """Delete a channel with its messages, as an admin or above."""
        await self.send("DELETE", f"/channels/{channel_id}")

    async def create_invite(
        self, guild_id: str, *, max_uses: int | None = None, expires_in_secs: int | None = None
    ) -> Invite:
        """Create an invite to a guild, whose `code` is for `accept_invite`. None means unlimited uses, and no expiry."""
        body = {"max_uses": max_uses, "expires_in_secs": expires_in_secs}
        return await self._post_for(Invite, f"/guilds/{guild_id}/invites", body)

    def invites(self, guild_id: str) -> AsyncIterator[Invite]:
        """Iterate over the valid invites of a guild, as a maintainer or above."""
        return self.list_items(Invite, f"/guilds/{guild_id}/invites")

    async def delete_invite(self, code: str) -> None:
        """Revoke an invite: one's own, or any as a moderator."""
        await self.send("DELETE", f"/invites/{quote(code, safe='', errors='surrogatepass')}")

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

        Both bounds are exclusive, and only one may be given. `epoch` is the epoch of the log that `since` belongs to
        (`Channel.epoch`); if the log has a new one, the error is 400 `invalid_since`. The error 503 `guild_offline` means that
        only the guild's owner server has these events, and cannot be reached.
        """
        bounds = {"since": since, "epoch": epoch, "before": before, "limit": limit}
        query = urlencode({name: value for name, value in bounds.items() if value is not None})
        answer = await self.send("GET", f"/channels/{channel_id}/events?{query}")
        return decode_answer(answer.body, list[ChannelEvent])

    async def history(self, channel_id: str, since: int = 0) -> AsyncIterator[ChannelEvent]:
        """Iterate over the log after `since`, page by page, to its current end.

        Raises the same as `events`, also between events. To continue, call it with the sequence of the last event as `since`.
        """
        while page := await self.events(channel_id, since=since, limit=MAX_PAGE_EVENTS):
            for event in page:
                yield event
            since = page[-1].sequence

    # --- lists -------------------------------------------------------------------------------------

    async def list_items(self, kind: type[T], path: str) -> AsyncIterator[T]:
        """Iterate over all items of a list such as `/guilds`, page by page (X-Next-After)."""
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

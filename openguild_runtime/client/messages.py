"""The client's methods for messages. Each command is performed exactly once: all attempts have the same key (PROTOCOL 7.5)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

from openguild_proto.client.errors import encoded
from openguild_proto.client.message_list import MessageList
from openguild_proto.gateway.frames import AnyCommand, Edit, Post, React, Read, Redact, Typing
from openguild_proto.limits import DEFAULT_PAGE_EVENTS
from openguild_proto.operations.epochs import LOG_HEAD
from openguild_proto.schemas.messages import (
    AllowedMentions,
    ChangedMessage,
    Mention,
    Message,
    ReadPosition,
    TextVersion,
)
from openguild_proto.schemas.search import SearchResult
from openguild_runtime.client.api import Api
from openguild_runtime.client.transport import OutcomeUnknown, decode_answer

T = TypeVar("T")
_REF = 0  # replaced when the command is sent


class Posted(msgspec.Struct, frozen=True, gc=False):
    """The server's acknowledgement of a post, whose event is durable then."""

    sequence: int
    event_id: str
    created_at: str


class Messages(Api):
    """Methods built on `execute`. All raise ApiError if nothing was done, and OutcomeUnknown if that is not known."""

    __slots__ = ()

    @property
    @abstractmethod
    def user_id(self) -> str | None:
        """The ID of the user who is logged in, or None."""

    @abstractmethod
    async def execute(self, command: AnyCommand) -> Any:
        """Perform a command exactly once and return its decoded result, or None. A command without a key gets one."""

    async def post(
        self,
        channel_id: str,
        text: str,
        *,
        reply_to: str | None = None,
        allowed_mentions: AllowedMentions | None = None,
        nonce: str | None = None,
    ) -> Posted:
        """Post a message. After OutcomeUnknown, post again with the exception's `nonce`.

        `nonce`, also of `edit`, has 1 to 64 visible ASCII characters and is random by default. A nonce is stored once in a
        channel; with another text it raises Conflict (PROTOCOL 7.5).
        """
        command = Post(_REF, channel_id, content=text, key=nonce, reply_to=reply_to, allowed_mentions=allowed_mentions)
        return _converted(await self.execute(command), Posted)

    async def edit(self, channel_id: str, message_id: str, text: str, *, nonce: str | None = None) -> ChangedMessage:
        """Change the text of the user's own message. `message_id` is `Posted.event_id`, or that of an event."""
        return await self._change(Edit(_REF, channel_id, event_id=message_id, content=text, key=nonce))

    async def redact(self, channel_id: str, message_id: str, reason: str | None = None) -> ChangedMessage:
        """Redact a message: the user's own, or as a moderator any. Idempotent."""
        return await self._change(Redact(_REF, channel_id, event_id=message_id, reason=reason))

    async def react(self, channel_id: str, message_id: str, emoji: str) -> ChangedMessage:
        """Add an emoji to a message. Idempotent."""
        return await self._change(React(_REF, channel_id, event_id=message_id, emoji=emoji))

    async def unreact(self, channel_id: str, message_id: str, emoji: str) -> ChangedMessage:
        """Remove the user's own emoji from a message. Idempotent."""
        return await self._change(React(_REF, channel_id, event_id=message_id, emoji=emoji, action="remove"))

    async def clear_reactions(
        self, channel_id: str, message_id: str, emoji: str | None = None, reason: str | None = None
    ) -> ChangedMessage:
        """Remove all users' reactions with `emoji`, or all reactions, from a message, as a moderator."""
        query = _query({"emoji": emoji, "reason": reason})
        path = f"/channels/{channel_id}/events/{message_id}/reactions" + (f"?{query}" if query else "")
        return decode_answer((await self.send("DELETE", path, key=self.new_key())).body, ChangedMessage)

    async def mark_read(self, channel_id: str, sequence: int | None = None) -> ReadPosition:
        """Move the read position to `sequence`, or to the newest event, and return it. It never moves back.

        The client sends one position a second, for all channels together, and only the newest of each channel. Use `note_read` if
        the program need not wait.
        """
        return _converted(await self.execute(Read(_REF, channel_id, sequence=sequence)), ReadPosition)

    @abstractmethod
    def note_read(self, channel_id: str, sequence: int | None = None) -> None:
        """Move the read position soon, over the gateway once it is open. A position that the server refuses is dropped."""

    async def typing(self, channel_id: str, preview: str | None = None) -> None:
        """Show the others that the user is typing, and the text `preview` if given."""
        await self.execute(Typing(_REF, channel_id, preview=preview))

    async def _change(self, command: AnyCommand) -> ChangedMessage:
        return _converted(await self.execute(command), ChangedMessage)

    # --- pins ----------------------------------------------------------------------------------------

    async def pin(self, channel_id: str, message_id: str) -> None:
        """Pin a message, as a moderator. Idempotent."""
        await self.send("PUT", f"/channels/{channel_id}/pins/{message_id}", repeatable=True)

    async def unpin(self, channel_id: str, message_id: str) -> None:
        """Unpin a message, as a moderator. Idempotent."""
        await self.send("DELETE", f"/channels/{channel_id}/pins/{message_id}", repeatable=True)

    def pins(self, channel_id: str) -> AsyncIterator[Message]:
        """Iterate over the pinned messages."""
        return self.list_items(Message, f"/channels/{channel_id}/pins")

    # --- reading -------------------------------------------------------------------------------------

    async def messages(
        self,
        channel_id: str,
        *,
        before: int | None = None,
        after: int | None = None,
        around: int | None = None,
        limit: int = DEFAULT_PAGE_EVENTS,
    ) -> list[Message]:
        """Return a page of messages in their current state, oldest first: the newest, or before, after or around a sequence."""
        bounds = {"before": before, "after": after, "around": around, "limit": limit}
        path = f"/channels/{channel_id}/messages?" + _query(bounds)
        return decode_answer((await self.send("GET", path)).body, list[Message])

    async def message_list(self, channel_id: str, user_id: str, *, limit: int = DEFAULT_PAGE_EVENTS) -> MessageList:
        """Return the newest messages as a list to which the channel's events can be applied. `user_id` is the caller's."""
        answer = await self.send("GET", f"/channels/{channel_id}/messages?limit={limit}")
        page, head = decode_answer(answer.body, list[Message]), answer.header(LOG_HEAD.lower())
        return MessageList(user_id, page, int(head or 0))

    async def message(self, channel_id: str, message_id: str) -> Message:
        """Return one message in its current state."""
        return decode_answer((await self.send("GET", f"/channels/{channel_id}/messages/{message_id}")).body, Message)

    async def versions(self, channel_id: str, message_id: str) -> list[TextVersion]:
        """Return the texts that a message had, oldest first."""
        path = f"/channels/{channel_id}/messages/{message_id}/versions"
        return decode_answer((await self.send("GET", path)).body, list[TextVersion])

    async def search(
        self,
        words: str,
        *,
        in_: str | None = None,
        from_: str | None = None,
        before: str | None = None,
        after: str | None = None,
        has: str | None = None,
        limit: int | None = None,
    ) -> list[SearchResult]:
        """Return messages with these words, newest first. For the other arguments see `GET /search/messages` in docs/api.md."""
        query = {
            "q": words, "in": in_, "from": from_, "before": before, "after": after, "has": has, "limit": limit
        }  # fmt: skip
        return decode_answer((await self.send("GET", f"/search/messages?{_query(query)}")).body, list[SearchResult])

    def inbox(self) -> AsyncIterator[Mention]:
        """Iterate over the messages that mention the caller, newest first."""
        return self.list_items(Mention, "/inbox")

    def unread(self) -> AsyncIterator[ReadPosition]:
        """Iterate over the read positions of all channels that the caller may read."""
        return self.list_items(ReadPosition, "/channels/unread")


def _query(members: dict[str, Any]) -> str:
    given = {name: value for name, value in members.items() if value is not None}
    encoded(given)  # refuses invalid text
    return urlencode(given)


def _converted(result: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(result, kind)
    except msgspec.ValidationError as failure:
        raise OutcomeUnknown(f"unexpected response: {failure}") from failure

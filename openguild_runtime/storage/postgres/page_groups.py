"""Groups readers that wait for the same page of a log: one statement reads it for all of them.

A statement begins after all of its readers have asked, so each of them sees what it has written. The rights are each reader's
own. One page that many ask for at once, such as that of a channel where everyone was mentioned, is read few times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from openguild_proto.effects import StorageUnavailable
from openguild_proto.effects.channels import FindChannelAccess, PageBounds
from openguild_proto.limits import MAX_BATCH_ITEMS
from openguild_proto.records import ChannelAccess
from openguild_runtime.storage.postgres.access import find_accesses_and_page
from openguild_runtime.storage.postgres.values import Connection

Found: TypeAlias = ChannelAccess | None
Use: TypeAlias = Callable[[Connection], Awaitable[Sequence[Found]]]
Read: TypeAlias = Callable[[Connection, str, PageBounds, Sequence[str]], Awaitable[Sequence[Found]]]


class _Group:
    """The first reader of a page leads: it waits for the connection, and has the others' results too."""

    __slots__ = ("followers", "users")

    def __init__(self, user_id: str) -> None:
        self.users = [user_id]
        self.followers: list[asyncio.Future[Found]] = []

    def settle(self, found: Sequence[Found]) -> None:
        for follower, result in zip(self.followers, found[1:], strict=True):
            if not follower.done():
                follower.set_result(result)

    def fail(self, failure: Exception) -> None:
        for follower in self.followers:
            if not follower.done():
                follower.set_exception(failure)


class PageGroups:
    """`borrow(use)` runs `use(connection)` once there is a connection.

    `read(connection, channel_id, page, user_ids)` returns one result for each user, in order.
    """

    def __init__(
        self, borrow: Callable[[Use], Awaitable[Sequence[Found]]], read: Read = find_accesses_and_page
    ) -> None:
        self._borrow = borrow
        self._read = read
        self._waiting: dict[tuple[str, PageBounds], _Group] = {}

    async def find(self, effect: FindChannelAccess, page: PageBounds) -> Found:
        """Return the access with the page. Raises StorageUnavailable, also if the one that leads is cancelled."""
        key = (effect.channel_id, page)
        waiting = self._waiting.get(key)
        if waiting is not None and len(waiting.users) < MAX_BATCH_ITEMS:
            waiting.users.append(effect.user_id)
            future: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
            waiting.followers.append(future)
            return await future
        group = self._waiting[key] = _Group(effect.user_id)

        async def read(connection: Connection) -> Sequence[Found]:
            self._close(key, group)
            return await self._read(connection, effect.channel_id, page, group.users)

        try:
            found = await self._borrow(read)
        except BaseException as failure:
            self._close(key, group)
            group.fail(failure if isinstance(failure, Exception) else StorageUnavailable())
            raise
        if group.followers:
            group.settle(found)
        return found[0]

    def _close(self, key: tuple[str, PageBounds], group: _Group) -> None:
        """Let nobody join any more."""
        if self._waiting.get(key) is group:
            del self._waiting[key]

"""Groups readers that wait for a connection with the same question: one statement answers all of them.

A statement begins after all of its readers have asked, so each of them sees what it has written. In a storm of reconnects
thousands of questions become tens of statements; where a connection is free, each is asked at once and alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, TypeAlias, TypeVar

from openguild_proto.effects import StorageUnavailable
from openguild_proto.limits import MAX_BATCH_ITEMS
from openguild_runtime.storage.postgres.values import Connection

T = TypeVar("T")
R = TypeVar("R")
Use: TypeAlias = Callable[[Connection], Awaitable[Any]]


class _Group:
    """The first one leads: it waits for the connection, and has the others' results too."""

    __slots__ = ("followers", "items")

    def __init__(self, item: Any) -> None:
        self.items = [item]
        self.followers: list[asyncio.Future[Any]] = []

    def settle(self, found: Sequence[Any]) -> None:
        for follower, result in zip(self.followers, found[1:], strict=True):
            if not follower.done():
                follower.set_result(result)

    def fail(self, failure: Exception) -> None:
        for follower in self.followers:
            if not follower.done():
                follower.set_exception(failure)


class ReadGroups:
    """`borrow(use, user_id)` runs `use(connection)` once there is a connection, in turns of the user; "": nobody."""

    def __init__(self, borrow: Callable[[Use, str], Awaitable[Any]]) -> None:
        self._borrow = borrow
        self._waiting: dict[Hashable, _Group] = {}

    async def find(
        self,
        key: Hashable,
        item: T,
        read: Callable[[Connection, Sequence[T]], Awaitable[Sequence[R]]],
        user_id: str = "",
    ) -> R:
        """Return the result of `item`. `read(connection, items)` returns one for each item of the same `key`, in order.
        `user_id`: in whose turns it is read, if it is the first that waits.

        Raises what `read` and `borrow` raise, and StorageUnavailable if the one that leads is cancelled.
        """
        waiting = self._waiting.get(key)
        if waiting is not None and len(waiting.items) < MAX_BATCH_ITEMS:
            waiting.items.append(item)
            future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
            waiting.followers.append(future)
            return await future
        group = self._waiting[key] = _Group(item)

        async def read_all(connection: Connection) -> Sequence[R]:
            self._close(key, group)
            return await read(connection, group.items)

        try:
            found: Sequence[R] = await self._borrow(read_all, user_id)
        except BaseException as failure:
            self._close(key, group)
            group.fail(failure if isinstance(failure, Exception) else StorageUnavailable())
            raise
        if group.followers:
            group.settle(found)
        return found[0]

    def _close(self, key: Hashable, group: _Group) -> None:
        """Let nobody join any more."""
        if self._waiting.get(key) is group:
            del self._waiting[key]

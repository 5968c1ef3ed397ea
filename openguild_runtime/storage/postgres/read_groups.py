"""Groups readers that wait for a connection for the same kind of read, and serves each group with one statement.

The statement begins after all of its readers have called, so that each sees its own earlier writes. In a storm of reconnects,
thousands of reads become tens of statements. While connections are free, each read runs at once and alone.
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
    """A group. The first reader waits for the connection, reads for all, and sets the results of its followers."""

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
    """Groups reads. `borrow(use, user_id)` runs `use(connection)` with a slot of the user; "" stands for no user."""

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
        """Return the result of `item`. `read(connection, items)` returns one result for each item of the same `key`, in order.

        `user_id` is passed to `borrow` if this call is the first of its group. Raises the exceptions of `read` and `borrow`, and
        StorageUnavailable if the first call of the group is cancelled.
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
        """Let no more readers join the group."""
        if self._waiting.get(key) is group:
            del self._waiting[key]

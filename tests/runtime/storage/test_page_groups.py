"""Readers of one page that wait together share a statement, and each sees what it has written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import pytest

from openguild_proto.effects import StorageUnavailable
from openguild_proto.effects.channels import FindChannelAccess, PageBounds
from openguild_proto.event_page import EventPage
from openguild_proto.records import ChannelAccess, ChannelRecord
from openguild_runtime.storage.postgres.page_groups import PageGroups
from openguild_runtime.storage.postgres.read_groups import ReadGroups

pytestmark = pytest.mark.anyio

T = TypeVar("T")
PAGE = PageBounds(50)


class Database:
    """One connection at most at a time; each statement lasts until it is let go on."""

    def __init__(self) -> None:
        self.places = anyio.Semaphore(1)
        self.statements: list[tuple[str, ...]] = []
        self.turns_of: list[str] = []  # of each statement
        self.go_on = anyio.Semaphore(0)
        self.failure: Exception | None = None
        self.pages = PageGroups(ReadGroups(self.borrow), self.read)

    async def borrow(self, use: Callable[[Any], Awaitable[T]], user_id: str) -> T:
        self.turns_of.append(user_id)
        async with self.places:
            return await use(None)

    async def read(
        self, connection: object, channel_id: str, page: PageBounds, user_ids: Sequence[str]
    ) -> Sequence[ChannelAccess | None]:
        self.statements.append((channel_id, *user_ids))
        await self.go_on.acquire()
        if self.failure is not None:
            raise self.failure
        channel, shared = ChannelRecord(channel_id, "g", "name", 0), EventPage(((1, b"{}"),))
        return [ChannelAccess(channel, user_id, None, (), 1, page=shared) for user_id in user_ids]

    def ask(self, channel_id: str, user_id: str, page: PageBounds = PAGE) -> asyncio.Task[ChannelAccess | None]:
        return asyncio.ensure_future(self.pages.find(FindChannelAccess(channel_id, user_id, page=page), page))


async def settled() -> None:
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


async def test_those_who_wait_for_a_page_have_one_statement_and_their_own_rights() -> None:
    database = Database()
    first = database.ask("c", "u1")
    await settled()
    later = [database.ask("c", "u2"), database.ask("d", "u3"), database.ask("c", "u4")]
    other = database.ask("c", "u5", PageBounds(50, before=9))
    for _ in range(4):
        await settled()
        database.go_on.release()
    found = await asyncio.gather(first, *later, other)
    assert [access and access.guild_role for access in found] == ["u1", "u2", "u3", "u4", "u5"]
    assert database.statements == [("c", "u1"), ("c", "u2", "u4"), ("d", "u3"), ("c", "u5")]
    assert database.turns_of == ["u1", "u2", "u3", "u5"], "those of the first that waits"


async def test_nobody_joins_a_statement_that_has_begun() -> None:
    database = Database()
    first = database.ask("c", "u1")
    await settled()
    second = database.ask("c", "u2")
    for _ in range(2):
        database.go_on.release()
    await asyncio.gather(first, second)
    assert database.statements == [("c", "u1"), ("c", "u2")]


async def test_all_who_wait_together_fail_together() -> None:
    database = Database()
    database.failure = StorageUnavailable()
    first = database.ask("c", "u1")
    await settled()
    more = [database.ask("c", "u2"), database.ask("c", "u3")]
    database.go_on.release()
    database.go_on.release()
    outcomes = await asyncio.gather(first, *more, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StorageUnavailable] * 3
    database.failure = None
    database.go_on.release()
    assert await database.ask("c", "u2") is not None


async def test_one_that_gives_up_takes_nobody_with_it_unless_it_leads() -> None:
    database = Database()
    first = database.ask("c", "u1")
    await settled()
    lead, follower, stays = database.ask("d", "u2"), database.ask("d", "u3"), database.ask("d", "u4")
    await settled()
    follower.cancel()
    database.go_on.release()
    database.go_on.release()
    await first
    assert (await lead, await stays) != (None, None)
    assert follower.cancelled()
    blocking = database.ask("c", "u1")
    await settled()
    lead, follower = database.ask("d", "u2"), database.ask("d", "u3")
    await settled()
    lead.cancel()
    with pytest.raises(StorageUnavailable):
        await follower
    database.go_on.release()
    assert await blocking is not None

"""A position that is moved over a long part of a log: it is counted before the reader's row is held."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random
from typing import NamedTuple

import anyio
import asyncpg
import pytest

from openguild_proto.effects.channels import MarkRead
from openguild_proto.records import Author, ReadState
from openguild_runtime.storage.migrations.first import LOOKUPS
from openguild_runtime.storage.migrations.first.reading import LONG_PART, MARK_READ
from openguild_runtime.storage.postgres import PostgresStorage
from tests.runtime.storage.test_deadlocks import in_line
from tests.runtime.storage.test_unread import (
    test_posts_and_marks_at_once_lose_no_count as lose_no_count,
)
from tests.runtime.storage.test_unread import (
    test_unread_is_what_counting_finds as is_what_counting_finds,
)
from tests.support.deeds import NOW, add_channel, add_guild, add_user, append
from tests.support.messages import post, stored

pytestmark = pytest.mark.anyio

FEW = MARK_READ.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION").replace(f" {LONG_PART}", " 1")
HOLD_POSITION = "SELECT FROM channel_read_state WHERE channel_id = $1 FOR UPDATE"


class Stores(NamedTuple):
    """A store for which a part of two events is long."""

    store: PostgresStorage
    url: str


@pytest.fixture
async def stores(database_url: str) -> AsyncIterator[Stores]:
    connection = await asyncpg.connect(database_url)
    await connection.execute(f"{FEW} {LOOKUPS}")
    await connection.close()
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        yield Stores(store, database_url)
        await store.aclose()


@pytest.mark.parametrize("seed", range(3))
async def test_unread_is_what_counting_finds(stores: Stores, seed: int) -> None:
    await is_what_counting_finds(stores.store, Random(seed))


async def test_posts_and_marks_at_once_lose_no_count(stores: Stores) -> None:
    await lose_no_count(stores.store)


@pytest.mark.parametrize("place", [3, 7], ids=["nearer to the former place", "nearer to the head"])
async def test_a_long_part_is_counted_before_the_position_is_held(stores: Stores, place: int) -> None:
    """A post of the reader would hold its channel while it waits for that row. What changes after the count is not seen."""
    reader, other = await add_user(stores.store), await add_user(stores.store)
    channel = await add_channel(stores.store, await add_guild(stores.store, reader), reader)
    for _ in range(10):
        await stored(stores.store, post(channel, reader, "mine"))
    for _ in range(3):
        await stored(stores.store, append(channel))
    states: list[ReadState] = []

    async def mark() -> None:
        effect = MarkRead(author=Author(reader), channel_id=channel, sequence=place, now_ms=NOW)
        states.append(await stores.store.perform(effect))

    async with in_line(stores.url, channel, lock=HOLD_POSITION) as begin:
        await begin(mark())
        beside = await asyncpg.connect(stores.url)
        await beside.execute("UPDATE log_events SET sender_id = $1 WHERE log_id = $2", other, channel)
        await beside.close()
    assert [(state.last_read_sequence, state.unread) for state in states] == [(place, 3)]


async def test_a_position_that_another_device_moves_meanwhile_is_counted_again(stores: Stores) -> None:
    reader = await add_user(stores.store)
    channel = await add_channel(stores.store, await add_guild(stores.store, reader), reader)
    for _ in range(10):
        await stored(stores.store, post(channel, reader, "mine"))
    states: list[ReadState] = []

    async def mark(place: int) -> None:
        effect = MarkRead(author=Author(reader), channel_id=channel, sequence=place, now_ms=NOW)
        states.append(await stores.store.perform(effect))

    async with in_line(stores.url, channel, lock=HOLD_POSITION) as begin:
        await begin(mark(3))
        await begin(mark(7))
    assert sorted(state.unread for state in states) == [0, 0]
    assert max(state.last_read_sequence for state in states) == 7

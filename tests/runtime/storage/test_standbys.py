"""Reads from a streaming standby: they see what was acknowledged before them, or the primary serves them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import anyio
import asyncpg
import pytest

from openguild_proto.effects import StorageEffect
from openguild_proto.effects.channels import FindChannelAccess, PageBounds, ReadEvents
from openguild_proto.effects.logs import FindLogs
from openguild_proto.effects.messages import ReadMessages
from openguild_proto.effects.search import SearchMessages
from openguild_proto.effects.standby import may_use_standby
from openguild_proto.policy.search import SearchConditions, parse_phrases
from openguild_proto.policy.standbys import StandbyState, StandbyStats
from openguild_runtime.storage import migrations
from openguild_runtime.storage.postgres import PostgresStorage
from openguild_runtime.storage.postgres.store import PERFORMERS
from tests.conftest import run_apart
from tests.runtime.storage.test_plans import Place, examples
from tests.support.deeds import add_channel, add_guild, add_user, new_id
from tests.support.messages import post, stored
from tests.support.standby import PrimaryPostgres, StandbyPostgres
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio


class Pair(NamedTuple):
    primary: PrimaryPostgres
    standby: StandbyPostgres


@pytest.fixture(scope="module")
def pair(module_directory: Path) -> Iterator[Pair]:
    primary = PrimaryPostgres(module_directory / "primary")
    primary.start()
    run_apart(migrations.upgrade, primary.url)
    standby = StandbyPostgres(module_directory / "standby", primary)
    standby.start()
    yield Pair(primary, standby)
    standby.stop()
    primary.stop()


@asynccontextmanager
async def opened(
    pair: Pair, *, wait_secs: float = 5.0, standby_url: str | None = None
) -> AsyncIterator[PostgresStorage]:
    async with anyio.create_task_group() as tasks:
        urls = [standby_url or pair.standby.url]
        store = PostgresStorage(pair.primary.url, tasks, standby_urls=urls, standby_wait_secs=wait_secs)
        await store.start()
        yield store
        await store.aclose()


@pytest.fixture
async def store(pair: Pair) -> AsyncIterator[PostgresStorage]:
    async with opened(pair) as store:
        await record_lineage(pair)
        await eventually(lambda: stats(store).serving)
        yield store


async def record_lineage(pair: Pair) -> None:
    """As a replica does at its start."""
    connection = await asyncpg.connect(pair.primary.url)
    await connection.execute(
        "UPDATE log_history SET lineage = (SELECT system_identifier FROM pg_control_system()) || ':00000001'"
    )
    await connection.close()


def stats(store: PostgresStorage) -> StandbyStats:
    return store.stats().standbys[0]


async def test_another_database_of_the_same_cluster_serves_nothing(pair: Pair) -> None:
    """A copy made of the database has the position of every write, and none of the writes."""
    await record_lineage(pair)
    connection = await asyncpg.connect(pair.primary.url, database="template1")
    name = urlsplit(pair.primary.url).path[1:]
    await connection.execute(f'CREATE DATABASE copy TEMPLATE "{name}"')
    await connection.close()
    copy = urlsplit(pair.standby.url)._replace(path="/copy").geturl()
    await eventually(lambda: answers(copy))
    async with opened(pair, standby_url=copy) as store:
        await eventually(lambda: stats(store).state is not None)
        assert stats(store).state is StandbyState.APART


async def answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url)
    except asyncpg.InvalidCatalogNameError:
        return False
    await connection.close()
    return True


async def test_reads_see_every_write_that_was_acknowledged_before(store: PostgresStorage) -> None:
    """Whoever wrote and whatever they read: pages, folded pages, places; and all of them from the standby."""
    user = await add_user(store)
    channel = await add_channel(store, await add_guild(store, user), user)
    before = stats(store)
    for number in range(1, 101):
        await stored(store, post(channel, user, f"message {number}"))
        access = await store.perform(FindChannelAccess(channel_id=channel, user_id=user, page=PageBounds(1)))
        assert access is not None
        assert access.page is not None
        assert access.page.events[0][0] == number
        folded = await store.perform(ReadMessages(channel_id=channel, reader_id=user, limit=1))
        assert folded is not None
        assert folded.head == number
        (place,) = await store.perform(FindLogs(user_id=user, log_ids=(channel,)))
        assert place.place.sequence == number
    assert stats(store) == StandbyStats(StandbyState.SERVING, reads=before.reads + 300, missed=0)


async def test_every_effect_for_standbys_has_the_same_answer_there(pair: Pair, store: PostgresStorage) -> None:
    user = await add_user(store)
    guild = await add_guild(store, user)
    channel = await add_channel(store, guild, user)
    messages = [await stored(store, post(channel, user, f"tea {number}")) for number in range(6)]
    place = Place(guild, channel, user, [message.event_id for message in messages])
    search = SearchMessages(reader_id=user, wanted=SearchConditions(phrases=parse_phrases("tea")), limit=5)
    effects = [effect for effect in (*examples(place), search) if may_use_standby(effect)]
    assert {type(effect) for effect in effects} == {
        effect for effect in PERFORMERS if issubclass(effect, StorageEffect) and effect.on_standby
    }
    async with opened(pair, standby_url=pair.primary.url) as alone:  # a primary serves as no standby
        for effect in effects:
            before = stats(store).reads
            assert await store.perform(effect) == await alone.perform(effect), effect
            assert stats(store).reads == before + 1, effect
        assert stats(alone).reads == 0


async def test_writes_and_access_checks_of_posts_use_the_primary(store: PostgresStorage) -> None:
    user = await add_user(store)
    channel = await add_channel(store, await add_guild(store, user), user)
    before = stats(store).reads
    assert await store.perform(FindChannelAccess(channel_id=channel, user_id=user)) is not None
    assert stats(store).reads == before


async def test_a_standby_that_is_behind_is_left_out_until_it_has_caught_up(pair: Pair, store: PostgresStorage) -> None:
    del store  # a lineage is recorded
    async with opened(pair, wait_secs=0.1) as store:
        await eventually(lambda: stats(store).serving)
        user = await add_user(store)
        channel = await add_channel(store, await add_guild(store, user), user)
        pair.standby.pause()
        try:
            await stored(store, post(channel, user, "new"))
            page = await store.perform(ReadEvents(log_id=channel, limit=5))
            assert page is not None
            assert len(page) == 1
            assert (stats(store).serving, stats(store).missed) == (False, 1)
            reads = stats(store).reads
            assert await store.perform(ReadEvents(log_id=channel, limit=5)) == page
            assert (stats(store).missed, stats(store).reads) == (1, reads)  # it was not asked
        finally:
            pair.standby.resume()
        await eventually(lambda: stats(store).serving)
        assert await store.perform(ReadEvents(log_id=channel, limit=5)) == page
        assert stats(store).reads == reads + 1


async def test_a_standby_that_cannot_be_reached_costs_no_read(pair: Pair, store: PostgresStorage) -> None:
    del store
    async with opened(pair, standby_url=pair.standby.url.replace(f":{pair.standby.port}/", ":1/")) as store:
        assert await store.perform(ReadEvents(log_id=new_id(), limit=5)) is None
        assert (stats(store).serving, stats(store).reads, stats(store).missed) == (False, 0, 0)

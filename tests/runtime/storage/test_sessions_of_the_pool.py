"""What a role or a database sets for others, and what migrations change under prepared statements."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import asyncpg
import pytest
import structlog

from openguild_proto.effects import StorageUnavailable
from openguild_proto.effects.accounts import FindUserByName
from openguild_proto.effects.channels import Appended
from openguild_proto.effects.guilds import RenameGuild
from openguild_proto.records import Author, History
from openguild_runtime.storage.postgres import PostgresStorage
from tests.support.deeds import add_channel, add_guild, add_user, append, control_head, history, renew_epochs
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

HOSTILE = {
    "default_transaction_isolation": "serializable", "lock_timeout": "1ms", "timezone": "Pacific/Kiritimati",
    "datestyle": "SQL, DMY", "intervalstyle": "sql_standard", "bytea_output": "escape", "transform_null_equals": "on",
    "statement_timeout": "1ms", "idle_in_transaction_session_timeout": "1ms", "extra_float_digits": "-15",
}  # fmt: skip
POOLED = {
    key: value for key, value in HOSTILE.items() if "timeout" not in key
}  # those a pooler's role has to leave alone


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
async def test_settings_of_the_role_do_no_harm(database_url: str, pooled: bool) -> None:
    """Two replicas post into one channel: at a stricter isolation they would fail each other."""
    name = database_url.rpartition("/")[2]
    hostile = POOLED if pooled else HOSTILE
    await execute(database_url, *(f"ALTER DATABASE {name} SET {key} = '{value}'" for key, value in hostile.items()))
    sequences: list[int] = []
    async with anyio.create_task_group() as tasks:
        stores = [PostgresStorage(database_url, tasks, statement_cache_size=0 if pooled else 100) for _ in range(2)]
        for store in stores:
            await store.start()
        owner = await add_user(stores[0], "somebody")
        guild = await add_guild(stores[0], owner)
        channel = await add_channel(stores[0], guild, owner)

        async def post(store: PostgresStorage) -> None:
            for number in range(20):
                outcome = await store.perform(append(channel))
                assert isinstance(outcome, Appended)
                sequences.append(outcome.event.sequence)
                await store.perform(RenameGuild(author=Author(owner), guild_id=guild, name=f"n{number}", now_ms=1))

        async with anyio.create_task_group() as posters:
            for store in stores:
                for _ in range(4):
                    posters.start_soon(post, store)
        assert sorted(sequences) == list(range(1, 161))
        assert await stores[1].perform(FindUserByName(username_key="somebody")) is not None
        for store in stores:
            await store.aclose()


async def test_a_result_that_changed_under_a_transaction_is_asked_for_again(database_url: str) -> None:
    """PostgreSQL refuses the prepared statement once; within a transaction asyncpg cannot try it again by itself."""
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks, pool_size=1)
        await store.start()
        owner = await add_user(store)
        await add_guild(store, owner)
        await execute(database_url, "ALTER TABLE control_head ALTER sequence TYPE integer")
        await add_guild(store, owner)
        assert await control_head(store) == 2
        await store.aclose()


# --- the history ------------------------------------------------------------------------------------

REFUSE = (
    "CREATE SCHEMA before",
    "CREATE FUNCTION before.pg_control_system() RETURNS TABLE (system_identifier bigint) LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE insufficient_privilege; END $$",
)


async def test_a_database_that_does_not_tell_its_timeline_serves(database_url: str) -> None:
    """As of services that are not quite PostgreSQL; said once, and new epochs are heard of all the same."""
    await execute(
        database_url, *REFUSE,
        f"ALTER DATABASE {database_url.rpartition('/')[2]} SET search_path = before, pg_catalog, public",
    )  # fmt: skip
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        with structlog.testing.capture_logs() as logged:
            found = await history(store)
            assert found == await history(store)
        assert found is not None
        assert found == History(lineage=None, recorded=None, renewals=0, database=found.database)
        assert ["does not tell its timeline" in record["event"] for record in logged] == [True]
        assert await renew_epochs(store, found, 1)
        assert not await renew_epochs(store, found, 1), "once for each reading"
        renewed = await history(store)
        assert renewed is not None
        assert renewed == History(lineage=None, recorded=None, renewals=1, database=renewed.database)
        assert renewed.database != found.database, "replicas of a copy leave those of the original"
        await store.aclose()


async def test_each_database_of_a_cluster_has_an_id_of_its_own(new_database: Callable[[], str]) -> None:
    """Also copies of one template; all who read it read the same."""
    urls = [new_database() for _ in range(2)]
    async with anyio.create_task_group() as tasks:
        stores = [PostgresStorage(url, tasks) for url in (*urls, urls[0])]
        found = []
        for store in stores:
            await store.start()
            said = await history(store)
            assert said is not None
            found.append(said.database)
            await store.aclose()
    assert found[0] == found[2] != found[1]
    assert found[0].rpartition("-")[0] == found[1].rpartition("-")[0], "copies"


async def test_an_event_that_is_missing_is_told_once_and_not_with_its_channel(database_url: str) -> None:
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        owner = await add_user(store)
        guild = await add_guild(store, owner)
        lost, deleted = [await add_channel(store, guild, owner, name) for name in ("lost", "deleted")]

        async def lacks() -> bool:
            found = await history(store)
            assert found is not None
            return found.lacks

        await store.perform(append(lost))
        assert [await lacks(), await lacks()] == [False, False]
        await execute(database_url, "DELETE FROM log_events")
        await store.perform(append(lost))  # by the database that took the other's place
        assert [await lacks(), await lacks(), await lacks()] == [True, False, False]

        await store.perform(append(deleted))
        assert not await lacks()
        await execute(database_url, f"DELETE FROM channels WHERE channel_id = '{deleted}'")
        assert not await lacks()
        await store.aclose()


async def test_an_event_of_a_guild_that_another_server_owns_is_not_missing(database_url: str) -> None:
    """Its mirror begins anew, and may come back without the event."""
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        owner = await add_user(store)
        moved, stays = [await add_channel(store, await add_guild(store, owner), owner) for _ in range(2)]
        await store.perform(append(moved))
        await execute(
            database_url,
            f"UPDATE channels SET origin = 'north.test' WHERE channel_id = '{moved}'",
            "DELETE FROM log_events",
        )
        found = await history(store)
        await execute(database_url, "UPDATE channels SET origin = NULL")
        back = await history(store)
        assert found is not None
        assert back is not None
        assert (found.lacks, back.lacks) == (False, False)
        await store.perform(append(stays))
        await execute(database_url, "DELETE FROM log_events")
        lost = await history(store)
        assert lost is not None
        assert lost.lacks, "events of this server's guilds are looked for as before"
        await store.aclose()


@pytest.mark.parametrize("later", [False, True], ids=["nothing else", "another session's event"])
async def test_a_missing_event_is_told_behind_a_first_one_that_is_there(database_url: str, later: bool) -> None:
    """All stored between two readings: the database that took the other's place has the first, and events of its own."""
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        owner = await add_user(store)
        channel = await add_channel(store, await add_guild(store, owner), owner)
        first, last = [await store.perform(append(channel)) for _ in range(2)]
        assert isinstance(first, Appended)
        assert isinstance(last, Appended)
        await execute(database_url, f"DELETE FROM log_events WHERE event_id = '{last.event.event_id}'")
        if later:
            await store._pool.renew()
            await store.perform(append(channel))
        found = await history(store)
        assert found is not None
        assert found.lacks
        await store.aclose()


async def test_what_a_failed_reading_asked_for_is_asked_again(database_url: str) -> None:
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        owner = await add_user(store)
        channel = await add_channel(store, await add_guild(store, owner), owner)
        await store.perform(append(channel))
        await execute(database_url, "DELETE FROM log_events", "ALTER TABLE log_history RENAME TO away")
        with pytest.raises(StorageUnavailable):
            await history(store)
        await store.perform(append(channel))
        await execute(database_url, "ALTER TABLE away RENAME TO log_history")
        found = await history(store)
        assert found is not None
        assert found.lacks
        await store.aclose()


async def test_a_session_that_ended_while_idle_fails_nobody(database_url: str) -> None:
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        for _ in range(3):
            await store.perform(FindUserByName(username_key="nobody"))
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        await execute(database_url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
        await eventually(lambda: store.stats().pool_size == 0, what="the end of all sessions")
        assert await store.perform(FindUserByName(username_key="nobody")) is None
        await store.aclose()

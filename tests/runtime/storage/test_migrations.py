"""The schema's history on a real PostgreSQL (PROTOCOL 11.6)."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import anyio
import asyncpg
import pytest
from alembic.script import ScriptDirectory

from openguild_proto.limits import MAX_SAFE_INTEGER
from openguild_runtime.storage import migrations
from openguild_runtime.storage.migrations import schema, script
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio


async def revision(url: str) -> str | None:
    connection = await asyncpg.connect(url)
    try:
        return await migrations.current(connection)
    finally:
        await connection.close()


async def test_replicas_that_migrate_at_once_do_it_once(empty_url: str, tmp_path: Path) -> None:
    assert await revision(empty_url) is None
    statuses: list[int] = []

    def migrate() -> None:
        statuses.append(ServerProcess(tmp_path, DATABASE_URL=empty_url).run_command("migrate").returncode)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(anyio.to_thread.run_sync, migrate)
    assert statuses == [0, 0, 0]
    assert await revision(empty_url) == migrations.expected()


async def test_the_printed_sql_makes_the_same_schema(empty_url: str, database_url: str) -> None:
    script = migrations.render_sql()
    connection = await asyncpg.connect(empty_url)
    await connection.execute(script)
    await connection.close()

    async def columns(url: str) -> list[tuple[object, ...]]:
        connection = await asyncpg.connect(url)
        rows = await connection.fetch(
            "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns "
            "WHERE table_schema = 'public' ORDER BY 1, 2"
        )
        await connection.close()
        return [tuple(row) for row in rows]

    assert await columns(empty_url) == await columns(database_url)
    assert await revision(empty_url) == migrations.expected()


TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")
NOTED = """
CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
CREATE SCHEMA noted;
CREATE TABLE noted.limits (name text, value text);
CREATE FUNCTION noted.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO noted.limits SELECT name, setting FROM pg_settings WHERE name IN ({names});
    RETURN NEW;
END $$;
CREATE TRIGGER noted BEFORE INSERT ON alembic_version FOR EACH ROW EXECUTE FUNCTION noted.note();
"""  # what applies at the last statement of a step


@pytest.mark.anyio
async def test_no_time_limit_of_the_database_ends_a_step(empty_url: str) -> None:
    name = urlsplit(empty_url).path[1:]
    connection = await asyncpg.connect(empty_url)
    await connection.execute(NOTED.format(names=", ".join(f"'{timeout}'" for timeout in TIMEOUTS)))
    for timeout in TIMEOUTS:
        await connection.execute(f"ALTER DATABASE {name} SET {timeout} = '10min'")
    await migrations.upgrade(empty_url)
    rows = await connection.fetch("SELECT DISTINCT name, value FROM noted.limits")
    await connection.close()
    assert {(row["name"], row["value"]) for row in rows} == {(timeout, "0") for timeout in TIMEOUTS}


def test_the_steps_are_those_that_alembic_finds() -> None:
    directory = ScriptDirectory.from_config(script.config())
    found = frozenset(step.revision for step in directory.walk_revisions())
    assert schema.steps() == (directory.get_current_head(), found)


LOG = "INSERT INTO logs (log_id, kind) VALUES (gen_random_uuid(), 'channel')"


async def test_a_restored_database_is_given_new_epochs(database_url: str, tmp_path: Path) -> None:
    """Each log another one, each time, and the database another id; nothing else of it changes."""
    connection = await asyncpg.connect(database_url)
    for _ in range(3):
        await connection.execute(LOG)
    rest = "SELECT log_id, kind, head_sequence, message_count FROM logs ORDER BY log_id"
    kept = await connection.fetch(rest)
    seen, ids = {1}, [await connection.fetchval("SELECT database FROM log_history")]
    for _ in range(2):
        done = ServerProcess(tmp_path, DATABASE_URL=database_url).run_command("migrate", "--new-epoch")
        assert (done.returncode, "new epoch" in done.stdout) == (0, True), done.stderr
        epochs = {row["epoch"] for row in await connection.fetch("SELECT epoch FROM logs")}
        assert len(epochs) == 3
        assert not epochs & seen
        assert all(1 < epoch <= MAX_SAFE_INTEGER for epoch in epochs)
        seen |= epochs
        ids.append(await connection.fetchval("SELECT database FROM log_history"))
    assert len(set(ids)) == 3, "replicas of a copy do not hear those of its original"
    assert await connection.fetch(rest) == kept
    await connection.close()
    refused = ServerProcess(tmp_path, DATABASE_URL=database_url).run_command("migrate", "--new-epoch", "--wait")
    assert refused.returncode == 2


def test_a_newer_schema_is_served_and_an_older_one_is_not() -> None:
    assert migrations.serves(migrations.expected())
    assert migrations.serves("9999")  # expand and contract: the release before goes on serving
    assert not migrations.serves(None)


async def test_read_positions_end_with_their_user(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    found = await connection.fetchval(
        "SELECT count(*) FROM information_schema.referential_constraints r JOIN information_schema.key_column_usage k "
        "USING (constraint_name) WHERE k.table_name = 'channel_read_state' AND k.column_name = 'user_id'"
    )
    await connection.close()
    assert found == 1

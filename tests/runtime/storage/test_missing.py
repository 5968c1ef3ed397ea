"""What somebody dropped or renamed in a current schema is named, and made anew when it is asked for."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from openguild_runtime.storage import migrations
from openguild_runtime.storage.migrations.missing import find_missing
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def lines(server: ServerProcess, *arguments: str) -> list[str]:
    done = server.run_command("migrate", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[1:]


async def test_what_was_dropped_is_named_and_rebuilt(database_url: str, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, DATABASE_URL=database_url)
    assert lines(server) == []
    await execute(database_url, "DROP INDEX log_events_nonce; ALTER FUNCTION mark_read_v1 RENAME TO mark_read_gone")
    told = [
        "Missing: index log_events_nonce, function mark_read_v1; `openguild-server migrate --missing` rebuilds that"
    ]
    assert lines(server) == lines(server) == told
    assert lines(server, "--missing") == ["Rebuilt: index log_events_nonce, function mark_read_v1"]
    assert lines(server) == lines(server, "--missing") == []


async def test_a_table_is_only_named(database_url: str, tmp_path: Path) -> None:
    """With its index: what is there under another name has both."""
    server = ServerProcess(tmp_path, DATABASE_URL=database_url)
    await execute(database_url, "ALTER TABLE invites RENAME TO invites_gone; ALTER INDEX invites_guild RENAME TO gone")
    told = ["Missing: table invites; if it was renamed, rename it back, otherwise restore a backup"]
    assert lines(server, "--missing") == lines(server) == told
    await execute(database_url, "ALTER TABLE invites_gone RENAME TO invites; ALTER INDEX gone RENAME TO invites_guild")
    assert lines(server) == []


async def test_an_index_that_was_not_built_is_invalid(database_url: str, tmp_path: Path) -> None:
    """One of ours, and one that a REINDEX left beside it. A unique one fails where rows are alike."""
    server = ServerProcess(tmp_path, DATABASE_URL=database_url)
    await execute(database_url, "DROP INDEX refresh_tokens_family")
    await execute(
        database_url, "INSERT INTO control_log (sequence, kind, session_ids) VALUES (1, 'x', '{}'), (2, 'x', '{}')"
    )
    for name in ("refresh_tokens_family", "other_ccnew"):
        with pytest.raises(asyncpg.UniqueViolationError):
            await execute(database_url, f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON control_log (kind)")
    missing, invalid = "index refresh_tokens_family", "index other_ccnew, index refresh_tokens_family"
    how = "`openguild-server migrate --missing`"
    assert lines(server) == [f"Missing: {missing}; {how} rebuilds that", f"Invalid: {invalid}; {how} drops it"]
    assert lines(server, "--missing") == [f"Rebuilt: {missing}", f"Dropped: {invalid}"]
    assert lines(server) == []


async def test_constraints_are_only_named(database_url: str, tmp_path: Path) -> None:
    """As after a restore that broke off: they come last."""
    server = ServerProcess(tmp_path, DATABASE_URL=database_url)
    await execute(
        database_url,
        "ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_pkey, DROP CONSTRAINT idempotency_keys_user_id_fkey",
    )
    named = "Missing: PRIMARY KEY of idempotency_keys, REFERENCES of idempotency_keys"
    told = [f"{named}; add it as `openguild-server migrate --sql` has it, or restore a backup"]
    assert lines(server, "--missing") == lines(server) == told


async def test_all_or_nothing_is_made(database_url: str) -> None:
    await execute(database_url, "DROP FUNCTION mark_read_v1; DROP INDEX refresh_tokens_family")
    holder = await asyncpg.connect(database_url)
    await holder.execute("BEGIN; LOCK TABLE refresh_tokens IN ROW EXCLUSIVE MODE")
    with pytest.raises(Exception, match="has locked the table"):
        await migrations.missing(database_url, make=True)
    await holder.close()
    assert list((await migrations.missing(database_url)).rest) == [
        "index refresh_tokens_family",
        "function mark_read_v1",
    ]
    await migrations.missing(database_url, make=True)
    assert await migrations.missing(database_url) == migrations.Missing()


def test_what_a_later_step_dropped_is_not_missing() -> None:
    steps = [
        "CREATE TABLE a (b int)",
        "CREATE UNIQUE INDEX a_b ON a (b)",
        "CREATE FUNCTION f_v1() RETURNS void",
        "DROP INDEX a_b",
    ]
    assert find_missing(steps, [("TABLE", "a")]).rest == {"function f_v1": steps[2]}
    assert find_missing([*steps, "DROP FUNCTION IF EXISTS f_v1()"], []) == migrations.Missing(("a",))

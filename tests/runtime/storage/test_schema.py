"""What `migrate` says of a schema that is not the one it expects: one line with the mend, or nothing to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from openguild_runtime.embedded import EmbeddedPostgres
from openguild_runtime.storage import fitness, migrations
from openguild_runtime.storage.fitness import DatabaseUnfit, Fitness
from openguild_runtime.storage.migrations.fingerprint import fingerprint
from openguild_runtime.storage.migrations.schema import Schema
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


LATER = ("ALTER TABLE users ADD COLUMN later text", "UPDATE alembic_version SET version_num = '0099_later'")


async def test_a_later_schema_is_left_as_it_is(database_url: str) -> None:
    await execute(database_url, *LATER)
    found = await migrations.upgrade(database_url)
    assert (found.revision, found.is_later, found.serves, found.problem) == ("0099_later", True, True, None)


async def test_a_later_schema_that_took_something_away_is_refused(database_url: str) -> None:
    await execute(database_url, *LATER, "UPDATE schema_serves SET serves_from = '0098'")
    with pytest.raises(DatabaseUnfit, match="run a release whose newest step is 0098 or later"):
        await migrations.upgrade(database_url)


async def test_a_rollback_migrates_and_renews_epochs(database_url: str, tmp_path: Path) -> None:
    await execute(database_url, *LATER)
    server = ServerProcess(tmp_path, DATABASE_URL=database_url)
    done = server.run_command("migrate", "--new-epoch")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first == "The schema is of a later release (0099_later); no migration needed, this release can use it"
    assert "new epoch" in second


async def test_two_versions_are_one_line(database_url: str, tmp_path: Path) -> None:
    await execute(database_url, "INSERT INTO alembic_version VALUES ('0099')")
    server = ServerProcess(tmp_path, DATABASE_URL=database_url, LOG_FORMAT="compact")
    done = server.run_command("migrate")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "alembic_version has 2 rows" in done.stderr
    assert "delete all but the one" in done.stderr


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        (["UPDATE alembic_version SET version_num = 'banana'"], "'banana', which is no step of OpenGuild"),
        (["UPDATE alembic_version SET version_num = ''"], "'', which is no step of OpenGuild"),
        (["UPDATE alembic_version SET version_num = '0000'"], "no step of OpenGuild"),
        (["DELETE FROM alembic_version"], "alembic_version does not say at which step"),
        (["DROP TABLE alembic_version"], "alembic_version does not say at which step"),
        (["CREATE SCHEMA other", "ALTER DATABASE {name} SET search_path = other"], "SET search_path = public"),
    ],
)
async def test_a_version_that_nobody_understands(database_url: str, statements: list[str], problem: str) -> None:
    await execute(database_url, *(text.format(name=name_of(database_url)) for text in statements))
    with pytest.raises(DatabaseUnfit, match=problem):
        await migrations.upgrade(database_url)


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        (["REVOKE CREATE ON SCHEMA public FROM public, pg_database_owner"], "permission denied.*GRANT USAGE, CREATE"),
        (["ALTER DATABASE {name} SET search_path = nowhere"], "create the schema that search_path names"),
        (["ALTER DATABASE {name} SET default_transaction_read_only = on"], "name the primary in database_url"),
        (["CREATE TABLE users (id int)"], "another program's database"),
    ],
)
async def test_a_database_that_refuses_the_steps(empty_url: str, statements: list[str], problem: str) -> None:
    await execute(empty_url, *(text.format(name=name_of(empty_url)) for text in statements))
    with pytest.raises(DatabaseUnfit, match=problem):
        await migrations.upgrade(empty_url)


async def test_limits_for_ordinary_queries_do_not_stop_a_migration(empty_url: str) -> None:
    name = name_of(empty_url)
    settings = {
        "default_transaction_isolation": "serializable",
        "lock_timeout": "1ms",
        "default_transaction_deferrable": "on",
    }
    await execute(empty_url, *(f"ALTER DATABASE {name} SET {key} = '{value}'" for key, value in settings.items()))
    assert (await migrations.upgrade(empty_url)).serves
    await migrations.renew_epochs(empty_url)


async def test_a_schema_that_is_current_needs_no_rights(database_url: str) -> None:
    """A standby, or a role that only serves: nothing is to do."""
    await execute(database_url, f"ALTER DATABASE {name_of(database_url)} SET default_transaction_read_only = on")
    assert (await migrations.upgrade(database_url)).revision == migrations.expected()
    with pytest.raises(DatabaseUnfit, match="read-only"):
        await migrations.renew_epochs(database_url)


# --- what cannot hold every message ----------------------------------------------------------------


@pytest.fixture
def encoded(postgres: EmbeddedPostgres) -> Callable[[str], str]:
    def name(encoding: str) -> str:
        return postgres.database_url(f"in_{encoding.lower()}")

    return name


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_an_encoding_that_cannot_hold_every_message(
    postgres: EmbeddedPostgres, encoded: Callable[[str], str], encoding: str, tmp_path: Path
) -> None:
    """Refused by `migrate`, and at the start although the schema is there."""
    url = encoded(encoding)
    await execute(
        postgres.url,
        f"CREATE DATABASE {name_of(url)} ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0",
    )
    with pytest.raises(DatabaseUnfit, match=f"encoding is {encoding}.*UTF8 is needed"):
        await migrations.upgrade(url)
    if encoding == "LATIN1":
        await execute(url, migrations.render_sql())
        done = ServerProcess(tmp_path, DATABASE_URL=url).run_command()
        assert done.returncode == 1
        assert "encoding is LATIN1" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


def test_replicas_of_one_database_have_one_name(database_url: str, tmp_path: Path) -> None:
    first, second = (
        ServerProcess(tmp_path, DATABASE_URL=database_url, SERVER_NAME=name) for name in ("a.test", "b.test")
    )
    with first.start(), ServerProcess(tmp_path, DATABASE_URL=database_url, SERVER_NAME="a.test").start():
        done = second.run_command()
        assert done.returncode == 1
        assert "server_name: this replica is 'b.test'" in done.stderr.splitlines()[-1]
        assert "serve from this database now are a.test" in done.stderr.splitlines()[-1]
    with second.start():
        pass  # where none of another name serves, the name may change


def test_a_postgresql_that_is_too_old() -> None:
    assert Fitness(version=fitness.MIN_VERSION, encoding="UTF8").problem is None
    assert "14 or newer is needed" in (Fitness(version=13, encoding="UTF8").problem or "")


def test_nobody_has_migrated_yet() -> None:
    assert (
        Schema("0005", frozenset({"0004", "0005"})).problem
        == Schema("0005", frozenset({"0004", "0005"}), revisions=("0004",)).problem
    )


async def test_a_database_of_a_development_version_is_told(database_url: str, tmp_path: Path) -> None:
    """Its first step has the same number. A server serves with what it finds, as before."""
    server = ServerProcess(tmp_path, DATABASE_URL=database_url, LOG_FORMAT="compact")
    for comment, status, told in (
        ("'first step 0123456789abcdef'", 1, "development version with another first step: create a new database"),
        ("'of an operator'", 0, "Note: the schema does not tell which version made it"),
        ("NULL", 0, "Note: the schema does not tell which version made it"),
    ):
        await execute(database_url, f"COMMENT ON TABLE alembic_version IS {comment}")
        done = server.run_command("migrate")
        assert (done.returncode, told in done.stdout + done.stderr) == (status, True), done
        assert (done.stdout + done.stderr).count("\n") == (1 if status else 2)
    with server.start():
        assert server.status("/ready") == 200


async def test_a_new_database_keeps_the_fingerprint_of_its_first_step(empty_url: str) -> None:
    assert (await migrations.upgrade(empty_url)).origin is migrations.Origin.THIS
    await execute(empty_url, "UPDATE alembic_version SET version_num = '0099_later'")
    assert (await migrations.upgrade(empty_url)).origin is migrations.Origin.THIS, "nothing is said of a later release"


def test_the_fingerprint_is_of_what_the_step_does() -> None:
    one = ["CREATE TABLE a (\n    b int\n)", "CREATE TABLE c (d int)"]
    assert fingerprint(one) == fingerprint(["CREATE TABLE a ( b int )", "CREATE TABLE c (d  int)"])
    assert len({fingerprint(one), fingerprint(one[:1]), fingerprint(["".join(one)]), fingerprint([])}) == 4

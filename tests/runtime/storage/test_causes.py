"""Why PostgreSQL cannot be used is told apart, and named with what to do about it."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import anyio
import asyncpg
import msgspec
import pytest
import trustme
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSStream
from structlog.testing import capture_logs

from openguild_proto.effects import StorageUnavailable
from openguild_proto.effects.accounts import InsertUser
from openguild_runtime.observability.database_causes import CAUSES, explain
from openguild_runtime.storage.postgres import PostgresStorage
from openguild_runtime.storage.postgres.faults import FaultLog, cause_of
from openguild_runtime.storage.postgres.tables import TABLES
from tests.support.busy import fair_secs
from tests.support.deeds import NOW, add_user, heads, new_id
from tests.support.server import ServerProcess
from tests.support.storage_handler import HeardFromStorage
from tests.support.waiting import free_port, wait_until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresStorage]:
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(url, tasks)
        await store.open()
        yield store
        await store.aclose()


def at(url: str, *, host: str | None = None, user: str | None = None, password: str | None = None) -> str:
    """The URL with another part."""
    parts = urlsplit(url)
    place = host or f"{parts.hostname}:{parts.port}"
    return urlunsplit(parts._replace(netloc=f"{user or parts.username}:{password or parts.password}@{place}"))


@pytest.fixture
def mute() -> Iterator[str]:
    """An address where somebody listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


WRONG: dict[str, Callable[[str], str]] = {
    "dns": lambda url: at(url, host="no-such-host.invalid:5432"),
    "refused": lambda url: at(url, host=f"127.0.0.1:{free_port()}"),
    "tls": lambda url: f"{url}?sslmode=require",
    "password": lambda url: at(url, password="wrong"),
    "no_database": lambda url: url + "_gone",
    "url": lambda url: f"{url}?sslmode=require&sslcert=/no/such/certificate",
    "setting": lambda url: f"{url}?no_such_setting=1",
}


@pytest.mark.parametrize("cause", WRONG)
async def test_why_it_cannot_be_connected_to_is_named(database_url: str, cause: str) -> None:
    async with opened(WRONG[cause](database_url)) as store:
        health = await store.check()
        assert (health.database, health.cause) == (False, cause)
        assert explain(health.cause) == str(CAUSES[cause])


REFUSED = {"no_such_setting": "1", "work_mem": "much", "max_connections": "5", "options": "-cno_such_setting%3D1"}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_setting_that_is_refused_is_named(database_url: str, name: str, tmp_path: Path) -> None:
    url = f"{database_url}?{name}={REFUSED[name]}"
    named = name if name != "options" else None  # several settings: PostgreSQL's log names it
    async with opened(url) as store:
        with capture_logs() as lines, pytest.raises(StorageUnavailable):
            await add_user(store)
        assert (await store.check()).cause == "setting"
    place = urlsplit(url).netloc.rpartition("@")[2]
    async with opened(url.replace(place, f"{place},{place}")) as store:
        assert (await store.check()).cause == "setting"
    (line,) = (line for line in lines if line.get("cause") == "setting")
    assert (line.get("parameter"), line["operation"]) == (named, "write")
    assert line["sqlstate"] in {"42704", "22023", "55P02"}
    done = ServerProcess(tmp_path, DATABASE_URL=url, LOG_FORMAT="compact").run_command("migrate")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    shown = f" ({named})" if named else ""
    assert f"migrate: the database cannot be used: it refuses a setting of the session{shown}: " in done.stderr


async def test_a_start_names_the_setting_that_is_refused(database_url: str, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, DATABASE_URL=f"{database_url}?no_such_setting=1")
    with server.start(ready=False):
        await anyio.to_thread.run_sync(
            lambda: wait_until(lambda: "waiting for the database" in server.tail(), what="the word of the log")
        )
    (line,) = (json.loads(line) for line in server.log_path.read_text().splitlines() if "waiting for the da" in line)
    assert (line["cause"], line["parameter"]) == ("setting", "no_such_setting")


async def test_a_certificate_that_nobody_has_is_a_fault_of_the_url(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGSSLROOTCERT", raising=False)
    async with opened(f"{database_url}?sslmode=verify-full") as store:
        assert (await store.check()).cause == "url"
    async with opened(f"postgresql:///d?host={tmp_path}") as store:
        assert (await store.check()).cause == "refused", "a Unix socket that is not there"


async def test_parameters_of_libpq_connect(database_url: str, tmp_path: Path) -> None:
    url = f"{database_url}?connect_timeout=3&keepalives=1&channel_binding=prefer&gssencmode=disable&application_name=x"
    server = ServerProcess(tmp_path, DATABASE_URL=url, LOG_FORMAT="compact")
    done = server.run_command("migrate")
    assert (done.returncode, done.stderr) == (0, "")
    with server.start():
        assert server.status("/ready") == 200


async def test_a_server_that_says_nothing_is_given_up_in_time(database_url: str, mute: str) -> None:
    async with opened(at(database_url, host=mute)) as store:
        asked = fair_secs()
        health = await store.check()
        assert fair_secs() - asked < 5
        assert health.cause == "timeout"
        asked = fair_secs()
        with pytest.raises(StorageUnavailable):
            await add_user(store)
        assert fair_secs() - asked < 0.5, "it is known to be silent"


async def test_a_schema_that_is_missing_is_named(empty_url: str) -> None:
    async with opened(empty_url) as store:
        health = await store.check()
        assert (health.database, health.migrations, health.cause) == (True, False, "migrations")


async def test_no_connection_left_is_named(database_url: str) -> None:
    async with opened(database_url) as store:
        assert (await store.check()).usable
        name = urlsplit(database_url).path[1:]
        owner = await asyncpg.connect(database_url)
        await owner.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
        try:
            with pytest.raises(StorageUnavailable):
                await add_user(store)
            health = await store.check()
            assert health.cause == "too_many_connections"
        finally:
            await owner.execute(f"ALTER DATABASE {name} CONNECTION LIMIT -1")
            await owner.close()
        assert (await store.check()).usable
        await add_user(store)


async def test_a_server_serves_on_with_the_connections_that_it_has(database_url: str) -> None:
    """Another program took the rest: a burst finds no more, and what goes through the others is answered."""
    async with opened(database_url) as store:
        assert (await store.check()).usable
        await add_user(store)  # leaves a session
        name = urlsplit(database_url).path[1:]
        owner = await asyncpg.connect(database_url)
        await owner.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
        try:
            refused = 0
            async with anyio.create_task_group() as tasks:

                async def add() -> None:
                    nonlocal refused
                    try:
                        await add_user(store)
                    except StorageUnavailable:
                        refused += 1

                for _ in range(3):
                    tasks.start_soon(add)
            assert refused == 2, "one had the session"
            for _ in range(2):
                assert (await store.check()).usable
                await add_user(store)
            await owner.execute("REVOKE INSERT ON users FROM CURRENT_USER")
            assert not (await store.check()).usable, "which do not take writes any more"
            await owner.execute("GRANT INSERT ON users TO CURRENT_USER")
        finally:
            await owner.execute(f"ALTER DATABASE {name} CONNECTION LIMIT -1")
            await owner.close()
        assert (await store.check()).usable
        await add_user(store)


@pytest.mark.parametrize("table", ["users", "control_head"])
async def test_a_lock_in_the_way_of_test_writes_says_nothing(database_url: str, table: str) -> None:
    holder = await asyncpg.connect(database_url)
    async with opened(database_url) as store, holder.transaction():
        await holder.execute(f"LOCK TABLE {table} IN SHARE MODE")
        health = await store.check()
        assert (health.usable, health.cause) == (True, None)
    await holder.close()


async def test_a_refusal_stands_until_writes_succeed(database_url: str) -> None:
    owner, holder = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    async with opened(database_url) as store:
        assert (await store.check()).usable
        await owner.execute("ALTER TABLE users RENAME COLUMN username TO renamed")
        with pytest.raises(StorageUnavailable):
            await add_user(store)
        refused = await store.check()
        assert (refused.writable, refused.cause) == (False, "schema")
        await owner.execute("ALTER TABLE users RENAME COLUMN renamed TO username")
        async with holder.transaction():
            await holder.execute("LOCK TABLE users IN SHARE MODE")
            assert await store.check() == refused, "a lock says nothing"
        assert (await store.check()).usable
    for connection in (owner, holder):
        await connection.close()


RENAMED = ("ALTER TABLE message_states RENAME TO other", "ALTER TABLE other RENAME TO message_states")
REVOKED = ("REVOKE SELECT ON reactions FROM CURRENT_USER", "GRANT SELECT ON reactions TO CURRENT_USER")


@pytest.mark.parametrize(("broken", "mended", "cause"), [(*RENAMED, "schema"), (*REVOKED, "rights")])
async def test_a_table_that_no_test_write_uses_is_looked_at_too(
    database_url: str, broken: str, mended: str, cause: str
) -> None:
    owner = await asyncpg.connect(database_url)
    async with opened(database_url) as store:
        assert (await store.check()).usable
        await owner.execute(broken)
        store._failed(False, cause)  # a read tells
        refused = await store.check()
        assert (refused.usable, refused.cause) == (False, cause)
        await owner.execute(mended)
        assert (await store.check()).usable
    await owner.close()


async def test_every_table_of_the_schema_is_looked_at(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
        " AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'"
    )
    await connection.close()
    assert sorted(row["relname"] for row in rows) == sorted(TABLES)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("SELECT FROM no_such_table", 'relation "no_such_table" does not exist'),
        ("SELECT no_such_column FROM users", 'column "no_such_column" does not exist'),
        ("SELECT no_such_function()", "function no_such_function() does not exist"),
        ("SELECT FROM reactions", "permission denied for table reactions"),
        ("INSERT INTO logs (log_id, kind) VALUES (NULL, 'secret')", None),
    ],
)
async def test_the_log_names_what_is_not_there_and_no_data(database_url: str, statement: str, says: str | None) -> None:
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute(REVOKED[0])
        with pytest.raises(asyncpg.PostgresError) as failure:
            async with connection.transaction():
                await connection.execute(statement)
        with capture_logs() as lines:
            FaultLog(lambda writes, cause: None).note("schema", failure.value, writes=False)
        await connection.execute(REVOKED[1])
    await connection.close()
    assert [line.get("says") for line in lines] == [says]


async def test_the_log_says_why_a_certificate_is_not_trusted(tmp_path: Path) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.test").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    async def shake_hands(stream: ByteStream) -> None:
        try:
            with suppress(anyio.BrokenResourceError, anyio.EndOfStream):  # the client does not like it
                await stream.receive(8)  # its SSLRequest
                await stream.send(b"S")
                await TLSStream.wrap(stream, server_side=True, ssl_context=context)
        finally:
            await anyio.aclose_forcefully(stream)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, shake_hands)
        port = listener.extra(SocketAttribute.local_port)
        with capture_logs() as lines:
            async with opened(
                f"postgresql://u:p@localhost:{port}/d?sslmode=verify-full&sslrootcert={tmp_path}/ca.pem"
            ) as store:
                assert (await store.check()).cause == "tls"
                with pytest.raises(StorageUnavailable):
                    await add_user(store)
        tasks.cancel_scope.cancel()
    (line,) = (line for line in lines if line.get("cause") == "tls")
    assert line["says"] == "the certificate is not trusted: it is for another host name"


async def test_what_is_in_the_way_of_the_first_look_is_named(database_url: str) -> None:
    holder = await asyncpg.connect(database_url)
    async with anyio.create_task_group() as tasks, holder.transaction():
        await holder.execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        store = PostgresStorage(database_url, tasks, statement_timeout_secs=0.2)
        await store.open()
        health = await store.check()
        assert (health.usable, health.cause) == (False, "slow"), "not a schema that is not current"
        await store.aclose()
    await holder.close()


async def test_sessions_that_became_read_only_leave_the_pool(database_url: str) -> None:
    """They were made while the database took no writes, and would say so for ever."""
    name = urlsplit(database_url).path[1:]
    async with opened(database_url) as store:
        owner = await asyncpg.connect(database_url)
        await owner.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        with pytest.raises(StorageUnavailable):
            await add_user(store)
        assert (await store.check()).cause == "read_only"
        await heads(store, [])  # a session that only reads is made in that time
        await owner.execute("SET default_transaction_read_only = off")
        await owner.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await owner.close()
        assert (await store.check()).usable
        for _ in range(10):
            await add_user(store)


async def test_what_the_proof_writes_is_not_there_afterwards(database_url: str) -> None:
    async with opened(database_url) as store:
        assert (await store.check()).usable
    reader = await asyncpg.connect(database_url)
    for table in ("users", "guilds", "channels", "log_events", "login_attempts", "control_log", "refresh_families"):
        assert await reader.fetchval(f"SELECT count(*) FROM {table}") == 0, table
    assert await reader.fetchval("SELECT sequence FROM control_head") == 0
    await reader.close()


def test_a_cause_is_logged_once_in_a_while_with_the_number_of_those_between() -> None:
    now, counted = 0.0, []
    faults = FaultLog(lambda writes, cause: counted.append((writes, cause)), lambda: now)
    with capture_logs() as lines:
        for _ in range(100):
            faults.note("disk_full", asyncpg.DiskFullError("secret path"), writes=True)
        faults.note("rights", asyncpg.InsufficientPrivilegeError("x"), writes=True)
        now = 31.0
        faults.note("disk_full", asyncpg.DiskFullError("secret path"), writes=True)
    assert [(line["cause"], line["sqlstate"], line["suppressed"]) for line in lines] == [
        ("disk_full", "53100", 0), ("rights", "42501", 0), ("disk_full", "53100", 99),
    ]  # fmt: skip
    assert len(counted) == 102
    assert "secret" not in str(lines)


async def test_an_effect_of_wrong_data_is_no_fault_of_the_database(database_url: str) -> None:
    async with opened(database_url) as store:
        store.attach(heard := HeardFromStorage())
        wrong = InsertUser(user_id="no identifier", username="x", username_key="x", password_hash="", now_ms=NOW)
        with pytest.raises(Exception, match="no identifier") as raised:
            await store.perform(wrong)
        assert cause_of(raised.value) is None
        twice = InsertUser(user_id=new_id(), username="x", username_key="x", password_hash="", now_ms=NOW)
        assert await store.perform(twice)
        with pytest.raises(asyncpg.UniqueViolationError):
            await store.perform(msgspec.structs.replace(twice, username_key="y"))
        assert heard.causes == []
        assert (await store.check()).usable

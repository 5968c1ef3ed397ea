"""Real parts for every test that wants them: one private PostgreSQL and one nats-server for the whole run."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import asyncpg
import pytest
from hypothesis import settings

from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from openguild_runtime.storage import migrations
from tests.support.chat import Chat, User
from tests.support.pooler import pooler_program, transaction_pooler
from tests.support.server import ServerProcess

TEMPLATE = "openguild_template"
settings.register_profile("tests", deadline=None)  # 200 ms of a clock on the wall: a busy machine is no defect
settings.load_profile("tests")
ServerProcess.launched = True  # benchmarks and long runs start interpreters
_numbers = itertools.count(1)


def run_apart(function: Callable[..., Awaitable[object]], *arguments: str) -> None:
    """Run a coroutine function in a thread of its own: the test's loop may be running already."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(anyio.run, function, *arguments).result()


async def _create_database(server_url: str, name: str, template: str) -> None:
    connection = await asyncpg.connect(server_url)
    try:
        # copied as files: to write the template through the log takes twice as long
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
    finally:
        await connection.close()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """The run's PostgreSQL; tests that stop or kill one start their own."""
    server = EmbeddedPostgres(
        tmp_path_factory.mktemp("postgres"), fsync=False, settings={"track_commit_timestamp": "on"}
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNats]:
    server = EmbeddedNats(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def new_database(postgres: EmbeddedPostgres) -> Callable[[], str]:
    """Makes an empty, migrated database; returns its URL."""
    run_apart(_create_database, postgres.url, TEMPLATE, "template1")
    run_apart(migrations.upgrade, postgres.database_url(TEMPLATE))

    def new() -> str:
        name = f"openguild_{next(_numbers)}"
        run_apart(_create_database, postgres.url, name, TEMPLATE)
        return postgres.database_url(name)

    return new


@pytest.fixture
def empty_url(postgres: EmbeddedPostgres) -> str:
    """A database without a schema."""
    name = f"empty_{next(_numbers)}"
    run_apart(_create_database, postgres.url, name, "template1")
    return postgres.database_url(name)


@pytest.fixture(scope="session")
def pooled(postgres: EmbeddedPostgres) -> Iterator[Callable[[str], str]]:
    """Turns a database URL into one through a pooler in transaction mode."""
    program = pooler_program()
    if program is None:
        pytest.skip("no pgbouncer on this machine")
    with (
        TemporaryDirectory(prefix="openguild-pooler-") as directory,  # open to the account it runs as
        transaction_pooler(program, postgres.url, Path(directory)) as through,
    ):
        yield through


@pytest.fixture
def database_url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture(scope="session")
def server(
    new_database: Callable[[], str], nats_server: EmbeddedNats, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """One real server process on real parts, shared by tests that only talk to it."""
    directory: Path = tmp_path_factory.mktemp("server")
    process = ServerProcess(directory, DATABASE_URL=new_database(), NATS__URL=nats_server.url)
    with process.start():
        yield process
        assert process.stop() == 0, process.tail()


@pytest.fixture
def chat(server: ServerProcess) -> Iterator[Chat]:
    client = Chat(server.base_url)
    yield client
    client.close()


@pytest.fixture
def alice(chat: Chat) -> User:
    return chat.user()


@pytest.fixture
def channel(alice: User) -> str:
    return alice.channel(alice.guild())

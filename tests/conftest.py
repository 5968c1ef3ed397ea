"""Fixtures with real parts: one private PostgreSQL and one nats-server for the whole run."""

from __future__ import annotations

import gc
import importlib
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import anyio.from_thread
import pytest
from hypothesis import settings

from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from tests.support.chat import Chat, User
from tests.support.databases import Databases
from tests.support.memory_files import use_memory_for_files
from tests.support.plans import EXPLAIN, ExplainingPostgres
from tests.support.pooler import pooler_program, transaction_pooler
from tests.support.server import ServerProcess

use_memory_for_files()
# A background job ignores SIGINT, and so would all processes that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Keep compiled files: without them each worker compiles all tests, and each process that they start the program.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

TESTS = Path(__file__).parent
ROOT = TESTS.parent
# Directories by what their modules mostly do; those with the longest modules first.
WAITING = (
    "scenarios", "web", "runtime/embedded", "deploy", "integration", "runtime/bus", "runtime/process", "interop", "conformance",
)  # fmt: skip
COMPUTING = ("simulation", "runtime/storage", "arch", "runtime", "proto/operations", "")
settings.register_profile("tests", deadline=None)  # the default of 200 ms is wall time: a busy machine exceeds it
settings.load_profile("tests")
ServerProcess.launched = True  # only for tests: benchmarks and long runs start an interpreter each


def run_apart(function: Callable[..., Awaitable[object]], *arguments: str) -> None:
    """Run a coroutine function in a separate thread: the test's loop may be running already."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(anyio.run, function, *arguments).result()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Alternate modules that wait for processes with modules that compute, so that both cores are busy until the end."""
    modules: dict[str, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.nodeid.partition("::")[0], []).append(item)
    waiting = {module: place for module in modules if (place := _place(module, WAITING)) is not None}
    computing = {module: _place(module, COMPUTING) or 0 for module in modules if module not in waiting}
    turns = zip_longest(*(sorted(found, key=found.__getitem__) for found in (waiting, computing)))
    items[:] = [item for turn in turns for module in turn if module is not None for item in modules[module]]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Iterator[object]:
    """Exclude tests and modules from garbage collection: they live to the end, and scanning them takes an eighth of the run."""
    gc.disable()
    _import_first(session.config)
    collected = yield
    gc.collect()
    gc.freeze()
    gc.enable()
    return collected


def _import_first(config: pytest.Config) -> None:
    """Import all modules of a whole run. Workers start at different places, so that in a fresh clone each compiles a share."""
    worker = getattr(config, "workerinput", None)
    if worker is None or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    alone = (path for path in TESTS.rglob("test_*.py") if not (path.parent / "__init__.py").exists())
    names = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in alone)  # pytest's names for them
    first = int(worker["workerid"].removeprefix("gw")) * len(names) // int(worker["workercount"])
    for name in names[first:] + names[:first]:
        with suppress(Exception, pytest.skip.Exception):  # pytest imports it again and reports the failure
            importlib.import_module(name)


def _place(module: str, directories: tuple[str, ...]) -> int | None:
    return next((place for place, name in enumerate(directories) if module.startswith(f"tests/{name}")), None)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def module_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a directory for large files and remove it after the module; pytest keeps its own when any test has failed."""
    directory = tmp_path_factory.mktemp("module")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """Run the session's PostgreSQL; tests that stop or kill a server start their own."""
    directory = tmp_path_factory.mktemp("postgres")
    settings = {"track_commit_timestamp": "on", "autovacuum": "off", "max_wal_size": "96MB", **EXPLAIN}
    server = ExplainingPostgres(directory, fsync=False, settings=settings)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(directory)  # even after a failure, when pytest keeps its directories


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNats]:
    server = EmbeddedNats(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def databases(postgres: EmbeddedPostgres) -> Iterator[Databases]:
    with anyio.from_thread.start_blocking_portal() as portal:
        made = Databases(postgres, portal)
        made.make_template()
        yield made
        made.close()


@pytest.fixture
def new_database(databases: Databases) -> Iterator[Callable[[], str]]:
    """Yield a function that creates an empty, migrated database for the test and returns its URL."""
    with ExitStack() as until:
        yield lambda: until.enter_context(databases.database())


@pytest.fixture(scope="module")
def module_database(databases: Databases) -> Iterator[str]:
    """Yield the URL of a migrated database that the tests of a module share."""
    with databases.database() as url:
        yield url


@pytest.fixture
def empty_url(databases: Databases) -> Iterator[str]:
    """Yield the URL of a database without a schema."""
    with databases.database("template1") as url:
        yield url


@pytest.fixture(scope="session")
def pooled(postgres: EmbeddedPostgres) -> Iterator[Callable[[str], str]]:
    """Yield a function that turns a database URL into one through a pooler in transaction mode."""
    program = pooler_program()
    if program is None:
        pytest.skip("no pgbouncer on this machine")
    with (
        TemporaryDirectory(prefix="openguild-pooler-") as directory,  # readable by the account that the pooler runs as
        transaction_pooler(program, postgres.url, Path(directory)) as through,
    ):
        yield through


@pytest.fixture
def database_url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture(scope="session")
def server(
    databases: Databases, nats_server: EmbeddedNats, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """Run one real server process on real parts, shared by tests that only send requests to it."""
    directory: Path = tmp_path_factory.mktemp("server")
    with (
        databases.database() as url,
        ServerProcess(directory, DATABASE_URL=url, NATS__URL=nats_server.url).start() as process,
    ):
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

"""Every store behind one fixture: the same suite runs on each, and through PgBouncer where the machine has it (PROTOCOL 11.4.5)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest

from openguild_proto.log import commits
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.memory import MemoryStorage
from openguild_runtime.storage.postgres import PostgresStorage, mirror_events
from tests.support.databases import Databases

STORES = ("memory", "postgres", "pgbouncer")


@pytest.fixture(params=STORES)
def storage_url(request: pytest.FixtureRequest) -> str | None:
    """A database of its own, or None for memory."""
    if request.param == "memory":
        return None
    url: str = request.getfixturevalue("new_database")()
    return request.getfixturevalue("pooled")(url) if request.param == "pgbouncer" else url


@pytest.fixture
async def storage(storage_url: str | None, request: pytest.FixtureRequest) -> AsyncIterator[Storage]:
    async with opened(storage_url, behind_pooler="pgbouncer" in request.node.callspec.id) as store:
        yield store


@pytest.fixture
def long_lock_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let posts and deliveries wait 10 s for a channel that the test holds locked, however busy the machine is."""
    for module in (commits, mirror_events):
        monkeypatch.setattr(module, "LOCK_TIMEOUT_MS", 10_000)


@pytest.fixture(scope="module", params=STORES)
def kept_storage_url(request: pytest.FixtureRequest) -> Iterator[tuple[str | None, bool]]:
    """Of a database that a module's tests share, or None for memory; and whether a pooler is before it."""
    if request.param == "memory":
        yield None, False
        return
    databases: Databases = request.getfixturevalue("databases")
    with databases.database() as url:
        pooled = request.param == "pgbouncer"
        yield request.getfixturevalue("pooled")(url) if pooled else url, pooled


@pytest.fixture(scope="module")
async def kept_storage(kept_storage_url: tuple[str | None, bool]) -> AsyncIterator[Storage]:
    """For modules whose tests touch only what they have made: they name it `storage`."""
    url, behind_pooler = kept_storage_url
    async with opened(url, behind_pooler=behind_pooler) as store:
        yield store


@asynccontextmanager
async def opened(url: str | None, *, behind_pooler: bool) -> AsyncIterator[Storage]:
    if url is None:
        yield MemoryStorage()
        return
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(url, tasks, pool_size=12, statement_cache_size=0 if behind_pooler else 100)
        await store.start()
        yield store
        await store.aclose()

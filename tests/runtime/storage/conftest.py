"""Every store behind one fixture: the same suite runs on each, and through PgBouncer where the machine has it (PROTOCOL 11.4.5)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.memory import MemoryStorage
from openguild_runtime.storage.postgres import PostgresStorage


@pytest.fixture(params=["memory", "postgres", "pgbouncer"])
def storage_url(request: pytest.FixtureRequest) -> str | None:
    """A database of its own, or None for memory."""
    if request.param == "memory":
        return None
    url: str = request.getfixturevalue("new_database")()
    return request.getfixturevalue("pooled")(url) if request.param == "pgbouncer" else url


@pytest.fixture
async def storage(storage_url: str | None, request: pytest.FixtureRequest) -> AsyncIterator[Storage]:
    if storage_url is None:
        yield MemoryStorage()
        return
    behind_pooler = "pgbouncer" in request.node.callspec.id
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(storage_url, tasks, pool_size=4, statement_cache_size=0 if behind_pooler else 100)
        await store.start()
        yield store
        await store.aclose()

"""Both stores behind one fixture: the same suite runs on each (D-13)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.memory import MemoryStorage
from openguild_runtime.storage.postgres import PostgresStorage


@pytest.fixture(params=["memory", "postgres"])
def storage_url(request: pytest.FixtureRequest) -> str | None:
    """A database of its own, or None for memory."""
    return request.getfixturevalue("new_database")() if request.param == "postgres" else None


@pytest.fixture
async def storage(storage_url: str | None) -> AsyncIterator[Storage]:
    if storage_url is None:
        yield MemoryStorage()
        return
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(storage_url, tasks, pool_size=4)
        await store.start()
        yield store
        await store.aclose()

"""A user whose row another transaction holds locked, as a ban does while it waits: their posts fail, those of others do not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import asyncpg
import pytest
import structlog

from openguild_proto.effects import Overloaded
from openguild_proto.effects.channels import Appended
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.log import commits
from openguild_proto.records import Author
from openguild_runtime.storage.postgres import PostgresStorage
from tests.support.deeds import add_channel, add_guild, add_user, append
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(module_database: str) -> AsyncIterator[PostgresStorage]:
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(module_database, tasks, committers=1)
        await store.start()
        yield store
        await store.aclose()


@pytest.fixture
async def rival(module_database: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Somebody else at the same database."""
    connection = await asyncpg.connect(module_database)
    yield connection
    await connection.close()


async def test_a_locked_user_fails_alone(
    store: PostgresStorage, rival: asyncpg.Connection[asyncpg.Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "RETRY_LIMIT_SECS", 60.0)  # a busy machine takes longer than a second
    owner, held = await add_user(store), await add_user(store)
    guild = await add_guild(store, owner)
    channels = [await add_channel(store, guild, owner, name) for name in ("one", "two")]
    assert await store.perform(GrantGuildRole(user_id=held, guild_id=guild, role="member", now_ms=0))
    stored: list[str] = []
    refused: list[str] = []

    async def post(channel: str, user: str) -> None:
        try:
            outcome = await store.perform(append(channel, user, author=Author(user)))
        except Overloaded:
            refused.append(user)
        else:
            assert isinstance(outcome, Appended)
            stored.append(user)

    async with rival.transaction():
        await rival.execute("SELECT FROM users WHERE user_id = $1 FOR UPDATE", held)
        with structlog.testing.capture_logs() as logged:
            async with anyio.create_task_group() as tasks:
                for channel in channels:
                    for user in (owner, held, owner):
                        tasks.start_soon(post, channel, user)
        assert (sorted(stored), sorted(refused)) == (sorted([owner] * 4), [held] * 2)
        await post(channels[0], owner)
        assert stored[4:] == [owner], "the channel is not blamed"
    line = "a user is locked in the database: their posts are refused for a moment"
    assert [record.get("user_id") for record in logged if record["event"] == line] == [held]
    assert not any("channel_id" in record for record in logged)

    async def posted() -> bool:
        await post(channels[0], held)
        return stored[-1] == held

    await eventually(posted)

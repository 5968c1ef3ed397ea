"""The channels of a batch and the logs of the users whom it mentions are locked for a few statements."""

from __future__ import annotations

import anyio
import asyncpg
import pytest
from msgspec.structs import replace

from openguild_proto.effects.logs import FindLogHead
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.records import Mentions
from openguild_proto.schemas.log_writer import LogWriter
from openguild_runtime.storage.postgres import PostgresStorage
from openguild_runtime.storage.postgres.append import append_batch
from tests.support.deeds import NOW, add_channel, add_guild, add_user
from tests.support.messages import post

pytestmark = pytest.mark.anyio

LOCK_TIMEOUT_MS = 10_000


async def test_mentions_of_a_batch_are_told_in_as_many_statements_however_many(module_database: str) -> None:
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(module_database, tasks)
        await store.start()
        owner, *users = [await add_user(store) for _ in range(3)]
        guild = await add_guild(store, owner)
        channel = await add_channel(store, guild, owner)
        for user_id in users:
            await store.perform(GrantGuildRole(user_id=user_id, guild_id=guild, role="member", now_ms=NOW))
        before = [await store.perform(FindLogHead(user_id)) for user_id in users]
        connection = await asyncpg.connect(module_database)
        counts = []
        for size in (2, 8):
            mentions = Mentions(tuple(users), (), False)
            batch = [replace(post(channel, owner, "you"), mentions=mentions) for _ in range(size)]
            asked: list[str] = []
            with connection.query_logger(lambda record, asked=asked: asked.append(record.query)):
                _, told = await append_batch(connection, batch, LOCK_TIMEOUT_MS, LogWriter())
            own = [query for query in asked if "log_id" in query]
            counts.append(len(own))
            assert len(told) == size * len(users)
        await connection.close()
        for user_id, place in zip(users, before, strict=True):
            after = await store.perform(FindLogHead(user_id))
            assert place is not None
            assert after is not None
            assert after.sequence == place.sequence + 10
        await store.aclose()
    assert counts[0] == counts[1]

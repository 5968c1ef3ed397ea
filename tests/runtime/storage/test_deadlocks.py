"""Two transactions that wait for each other: PostgreSQL ends the one that has waited longer, which is run again."""

from __future__ import annotations

import anyio
import asyncpg
import pytest

from openguild_proto.effects.guilds import RemoveMember
from openguild_proto.records import Author, MemberChange
from openguild_runtime.storage.postgres import PostgresStorage
from tests.support.deeds import NOW, add_guild, add_user
from tests.support.peers import join
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def test_a_change_that_was_chosen_to_end_a_deadlock_is_made(database_url: str) -> None:
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        owner = await add_user(store)
        guild = await add_guild(store, owner)
        user = await join(store, guild, owner)
        other, looker = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
        outcomes: list[MemberChange] = []

        async def leave() -> None:
            effect = RemoveMember(author=Author(user), guild_id=guild, user_id=user, now_ms=NOW)
            outcomes.append(await store.perform(effect))

        async def waiting() -> bool:
            return bool(await looker.fetchval(WAITING))

        async with anyio.create_task_group() as both, other.transaction():
            await other.execute("SELECT FROM guilds WHERE guild_id = $1 FOR UPDATE", guild)
            both.start_soon(leave)
            await eventually(waiting, what="the store that waits")
            await other.execute("SELECT FROM users WHERE user_id = $1 FOR UPDATE", user)
        assert outcomes == [MemberChange.DONE]
        await other.close()
        await looker.close()
        await store.aclose()

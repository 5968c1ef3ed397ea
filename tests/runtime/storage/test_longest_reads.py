"""Of the longest reads a user has a part of the connections, so that many leave the others to others (PROTOCOL 9.2.11)."""

from __future__ import annotations

import anyio
import asyncpg
import pytest

from openguild_proto.effects.accounts import DescribeUser, FindUser
from openguild_proto.effects.bans import ListBans
from openguild_proto.effects.channels import ListChannels, ListUnread
from openguild_proto.effects.guilds import ListMembers
from openguild_proto.effects.mentions import ListMentions
from openguild_proto.effects.messages import ListPins, ReadMessages, ReadVersions
from openguild_runtime.storage.postgres import PostgresStorage
from tests.support.deeds import add_channel, add_guild, add_user, new_id
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
TABLES = "guild_memberships, guild_bans, channels, logs, log_events, message_states"


async def test_the_longest_reads_of_a_user_leave_connections_to_others(database_url: str) -> None:
    """Such a read takes up to 50 ms, and a user may ask for 3,000 at once."""
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        eager, other = await add_user(store), await add_user(store)
        guild = await add_guild(store, eager)
        channel = await add_channel(store, guild, eager)
        asked = [
            DescribeUser(user_id=eager),
            ListUnread(user_id=eager),
            ListMentions(user_id=eager),
            ReadMessages(channel_id=channel, reader_id=eager, limit=50),
            ListPins(channel_id=channel, reader_id=eager, limit=50),
            ReadVersions(channel_id=channel, reader_id=eager, event_id=new_id()),
            ListMembers(guild_id=guild, reader_id=eager),
            ListChannels(guild_id=guild, reader_id=eager),
            ListBans(guild_id=guild, reader_id=eager),
        ]
        rival = await asyncpg.connect(database_url)

        async def all_but_one_wait() -> bool:
            await rival.execute(
                "SELECT pg_stat_clear_snapshot()"
            )  # else it shows its transaction what it showed before
            waiting: int = await rival.fetchval(BLOCKED)
            return waiting == 3

        async with anyio.create_task_group() as readers, rival.transaction():
            await rival.execute(f"LOCK TABLE {TABLES}")
            for effect in asked * 10:
                readers.start_soon(store.perform, effect)
            await eventually(all_but_one_wait)
            with anyio.fail_after(2):
                for _ in range(20):
                    assert await store.perform(FindUser(user_id=other))
            assert await all_but_one_wait()
        await rival.close()
        await store.aclose()

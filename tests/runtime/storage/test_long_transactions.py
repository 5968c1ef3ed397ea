"""A log that is stored anew, with statements that take longer than those of requests may (PROTOCOL 16.10)."""

from __future__ import annotations

import anyio
import asyncpg
import pytest

from openguild_proto.effects.handovers import AbsorbHistory, FindCopies, StageHistory
from openguild_runtime.storage.postgres import PostgresStorage
from tests.runtime.storage.test_taking_over import history, level, mirrored
from tests.support.owner_server import OWNER, Owner
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

TIMEOUT_SECS = 2.0
OVERDUE = f"""
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
AND clock_timestamp() - query_start > interval '{1.5 * TIMEOUT_SECS} s'
"""


async def test_a_statement_of_a_log_that_is_stored_anew_has_minutes(database_url: str) -> None:
    """200,000 events take 18 s in one of them."""
    owner = Owner()
    owner.post("before the mirror")
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        await mirrored(store, owner)
        owner.post("delivered")
        await level(store, owner, owner.channel_id)
        assert await store.perform(StageHistory(OWNER, owner.channel_id, history(owner, owner.channel_id))) is None
        impatient = PostgresStorage(database_url, tasks, statement_timeout_secs=TIMEOUT_SECS)
        await impatient.start()
        holder, looker = await asyncpg.connect(database_url), await asyncpg.connect(database_url)

        async def overdue() -> bool:
            return bool(await looker.fetchval(OVERDUE))

        async with anyio.create_task_group() as beside, holder.transaction():
            await holder.execute("SELECT FROM log_events WHERE log_id = $1 FOR UPDATE", owner.channel_id)
            beside.start_soon(impatient.perform, AbsorbHistory(OWNER, owner.channel_id))
            await eventually(overdue, what="a statement that waits for longer than others may")
        _, channel = await store.perform(FindCopies(OWNER, owner.guild_id)) or ()
        assert (channel.base, channel.copied, channel.head) == (0, 2, 2)
        for connection in (holder, looker):
            await connection.close()
        for each in (impatient, store):
            await each.aclose()

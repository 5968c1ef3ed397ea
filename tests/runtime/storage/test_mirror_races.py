"""A post that its home keeps at once, and the delivery that brings it: both at the same log at the same time."""

from __future__ import annotations

from functools import partial

import anyio
import asyncpg
import pytest
from msgspec.structs import replace

from openguild_proto.canonical.keys import encode_unpadded
from openguild_proto.canonical.receipts import chain_over, first_link
from openguild_proto.effects.mirrors import MirrorEvents, MirrorOutcome, ReadSnapshot, StoreMirror
from openguild_proto.mirror_records import Snapshot
from openguild_runtime.storage.postgres import PostgresStorage
from tests.support.owner_server import HERE, NOW_MS, OWNER, Owner, new_id
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def test_a_delivery_that_waited_follows_the_newest_chain(database_url: str, long_lock_timeout: None) -> None:
    owner = Owner()
    owner.join(new_id())
    snapshot: Snapshot = owner.do(ReadSnapshot(HERE, owner.guild_id))
    begin = first_link(owner.channel_id, 1, 0)
    channels = [replace(line, chain=encode_unpadded(begin)) for line in snapshot.channels]
    for text in ("kept at home", "brought with it"):
        owner.post(text)
    news = owner.news(owner.channel_id, 0)
    chain = chain_over(begin, owner.channel_id, 1, [(event.sequence, event.event_id) for event in news])
    outcomes: list[MirrorOutcome] = []
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        await store.perform(StoreMirror(OWNER, owner.guild_id, replace(snapshot, channels=channels), NOW_MS))
        holder, looker = await asyncpg.connect(database_url), await asyncpg.connect(database_url)

        async def waiting(count: int) -> bool:
            return bool(await looker.fetchval(WAITING) == count)

        async def take(size: int, told: bytes | None) -> None:
            effect = MirrorEvents(OWNER, owner.guild_id, owner.channel_id, 1, news[:size], chain=told)
            outcomes.append(await store.perform(effect))

        async with anyio.create_task_group() as both, holder.transaction():
            await holder.execute("SELECT FROM logs WHERE log_id = $1 FOR UPDATE", owner.channel_id)
            for number, (size, told) in enumerate(((1, None), (2, chain)), start=1):
                both.start_soon(take, size, told)
                await eventually(partial(waiting, number), what="one more that waits")
        await holder.close()
        await looker.close()
        await store.aclose()
    assert [(outcome.status, outcome.reason, len(outcome.events)) for outcome in outcomes] == [("ok", None, 1)] * 2

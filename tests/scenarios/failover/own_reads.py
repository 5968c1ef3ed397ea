"""`python -m tests.scenarios.failover.own_reads --secs 50`: one store writes, another one reads from the standby.

Both are in one process, without HTTP, so that even a busy machine makes many reads. A dozen reads begin right after each post.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import anyio
import asyncpg

from openguild_proto.effects.channels import FindChannelAccess, PageBounds
from openguild_proto.effects.logs import FindLogs, ReadLogs
from openguild_proto.effects.messages import ReadMessages
from openguild_proto.records import LogPart
from openguild_runtime.storage import migrations
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.postgres import PostgresStorage
from tests.support.deeds import add_channel, add_guild, add_user
from tests.support.messages import post, stored
from tests.support.standby import PrimaryPostgres, StandbyPostgres
from tests.support.waiting import eventually

AUTHORS = 16
READS = 12  # after each post
RECORD = "UPDATE log_history SET lineage = (SELECT system_identifier FROM pg_control_system()) || ':00000001'"


class Count:
    """The counts over all authors. `missed`: reads without the author's newest post."""

    def __init__(self) -> None:
        self.posts = self.reads = self.missed = 0


async def newest(storage: Storage, user: str, channel: str, posted: int, kind: int) -> int:
    """Return the newest sequence that a read shows, by one of the kinds of read."""
    match kind % 4:
        case 0:
            bounds = PageBounds(1 + kind)
            access = await storage.perform(FindChannelAccess(channel_id=channel, user_id=user, page=bounds))
            return access.page.events[-1][0] if access is not None else 0
        case 1:
            page = await storage.perform(ReadMessages(channel_id=channel, reader_id=user, limit=1))
            return page.messages[-1].state.sequence if page is not None else 0
        case 2:
            (place,) = await storage.perform(FindLogs(user_id=user, log_ids=(channel,)))
            return place.place.sequence
    events = await storage.perform(ReadLogs(parts=(LogPart(channel, posted - 1, 5),)))
    return events[-1].sequence if events else 0


async def post_and_read(writes: Storage, reads: Storage, until: float, count: Count) -> None:
    user = await add_user(writes)
    channel = await add_channel(writes, await add_guild(writes, user), user)
    posted = 0

    async def look(kind: int) -> None:
        count.missed += await newest(reads, user, channel, posted, kind) < posted
        count.reads += 1

    while time.monotonic() < until:
        posted = (await stored(writes, post(channel, user, f"message {posted}"))).sequence
        count.posts += 1
        async with anyio.create_task_group() as looking:
            for kind in range(READS):
                looking.start_soon(look, kind)


async def run(primary: PrimaryPostgres, standby: StandbyPostgres, secs: float) -> bool:
    await migrations.upgrade(primary.url)
    standby.start()
    connection = await asyncpg.connect(primary.url)
    await connection.execute(RECORD)  # as a replica does when it starts
    await connection.close()
    count = Count()
    async with anyio.create_task_group() as tasks:
        writes = PostgresStorage(primary.url, tasks)
        reads = PostgresStorage(primary.url, tasks, standby_urls=[standby.url], standby_wait_secs=10)
        await writes.start()
        await reads.start()
        await eventually(lambda: reads.stats().standbys[0].serving)
        until = time.monotonic() + secs
        async with anyio.create_task_group() as authors:
            for _ in range(AUTHORS):
                authors.start_soon(post_and_read, writes, reads, until, count)
        (served,) = reads.stats().standbys
        await writes.aclose()
        await reads.aclose()
    sys.stdout.write(
        f"{count.posts:,} posts, {count.reads:,} reads, {served.reads:,} by the standby, {count.missed} missed\n"
    )
    return count.missed == 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--secs", type=float, default=50.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="og-own-reads-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        primary = PrimaryPostgres(directory / "primary")
        primary.start()
        standby = StandbyPostgres(directory / "standby", primary)
        try:
            return 0 if anyio.run(run, primary, standby, given.secs) else 1
        finally:
            standby.stop()
            primary.stop()


if __name__ == "__main__":
    raise SystemExit(main())

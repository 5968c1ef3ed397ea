"""A purge that is noted while a delivery's answer moves the cursors: none is left."""

from __future__ import annotations

import anyio
import asyncpg
import pytest

from openguild_proto.effects.deliveries import CursorMove, FindBehind, MoveCursors
from openguild_proto.effects.guilds import RemoveMember
from openguild_proto.records import Author, MemberChange
from openguild_runtime.storage.postgres import PostgresStorage
from tests.support.deeds import NOW, add_channel, add_guild, add_user, append, new_id
from tests.support.peers import join
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

WAITING = "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
PURGED = "UPDATE federation_guilds SET purged_at = now() WHERE guild_id = $1"


@pytest.mark.parametrize("had_cursor", [True, False], ids=["moved", "fresh"])
async def test_no_cursor_follows_a_purge(had_cursor: bool, database_url: str) -> None:
    peer = f"{new_id()}.test"
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        owner = await add_user(store)
        guild = await add_guild(store, owner)
        channel = await add_channel(store, guild, owner)
        user = await join(store, guild, owner, peer)
        await store.perform(append(channel))
        (news,) = [each for each in await store.perform(FindBehind(peer=peer, limit=9)) if each.head.log_id == channel]
        moves = MoveCursors((CursorMove(peer, news.head),))
        kick = RemoveMember(author=Author(owner), guild_id=guild, user_id=user, now_ms=NOW + 1)
        assert await store.perform(kick) is MemberChange.DONE
        holder, looker = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
        if not had_cursor:
            await holder.execute("DELETE FROM federation_cursors")
        async with anyio.create_task_group() as both, holder.transaction():
            await holder.execute(PURGED, guild)
            await holder.execute("DELETE FROM federation_cursors")
            both.start_soon(store.perform, moves)
            await eventually(lambda: looker.fetchval(WAITING), what="the move waits")
        assert await looker.fetchval("SELECT count(*) FROM federation_cursors") == 0
        await holder.close()
        await looker.close()
        await store.aclose()

"""Guilds that are shown to other servers: a large one takes seconds, for which nobody waits."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import asyncpg
import pytest

from openguild_proto.effects.base import StorageEffect
from openguild_proto.effects.guilds import InsertInvite, RemoveMember
from openguild_proto.effects.mirrors import JoinFromServer, ReadSnapshot, RemoteJoin, shown_in
from openguild_proto.mirror_records import RemoteUser, Snapshot
from openguild_proto.records import Author
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.postgres import PostgresStorage
from tests.support.deeds import NOW, add_channel, add_guild, add_user, new_id
from tests.support.peers import PEER, join
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
LOCKED = """
SELECT (SELECT count(*) FROM logs) - (SELECT count(*) FROM (SELECT FROM logs FOR UPDATE SKIP LOCKED) AS free) AS logs,
    NOT EXISTS (SELECT FROM control_head FOR UPDATE SKIP LOCKED) AS control
"""
Asked = Callable[[str, str], StorageEffect[object]]


def joins(guild_id: str, code: str) -> StorageEffect[object]:
    effect: StorageEffect[object] = JoinFromServer(PEER, RemoteUser(new_id(), "eve"), code, "member", NOW, 100, True)
    return effect


def reads(guild_id: str, code: str) -> StorageEffect[object]:
    effect: StorageEffect[object] = ReadSnapshot(PEER, guild_id)
    return effect


@pytest.mark.parametrize("asked", [joins, reads])
async def test_no_log_is_locked_while_a_guild_is_read_for_a_server(asked: Asked, database_url: str) -> None:
    """Neither the guild's nor the control log, for which joins and bans of every guild and ends of sessions would wait."""
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        owner, code = await add_user(store), new_id()[:12]
        guild = await add_guild(store, owner)
        await add_channel(store, guild, owner)
        await store.perform(InsertInvite(Author(owner), code, guild, None, None, NOW))
        await join(store, guild, owner)
        rival, looker = await asyncpg.connect(database_url), await asyncpg.connect(database_url)

        async def is_reading() -> bool:
            await rival.execute("SELECT pg_stat_clear_snapshot()")
            return bool(await rival.fetchval(WAITING))

        async with anyio.create_task_group() as peers, rival.transaction():
            await rival.execute("LOCK TABLE channel_memberships")  # of all tables, only the snapshot needs this one
            peers.start_soon(store.perform, asked(guild, code))
            await eventually(is_reading, what="a peer that reads")
            assert tuple(await looker.fetchrow(LOCKED)) == (0, False)
        await rival.close()
        await looker.close()
        await store.aclose()


async def test_whoever_left_before_the_snapshot_was_read_has_not_joined(storage: Storage) -> None:
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    first, code = await join(storage, guild, owner), new_id()[:12]
    await storage.perform(InsertInvite(Author(owner), code, guild, None, None, NOW))
    joined = await storage.perform(JoinFromServer(PEER, RemoteUser(new_id(), "eve"), code, "member", NOW, 100, False))
    assert isinstance(joined, RemoteJoin)
    user = joined.member.user_id
    await storage.perform(RemoveMember(Author(first), guild, first, NOW))
    snapshot = await storage.perform(ReadSnapshot(PEER, guild))
    assert isinstance(snapshot, Snapshot)
    shown = shown_in(joined, snapshot)
    assert shown is not None
    assert (
        shown.place.sequence == snapshot.sequence == joined.place.sequence + 1
    )  # of the snapshot, which lacks the other
    assert {member.user_id for member in snapshot.members} == {owner, user}
    await join(storage, guild, owner)  # the peer mirrors the guild still
    await storage.perform(RemoveMember(Author(user), guild, user, NOW))
    assert shown_in(joined, await storage.perform(ReadSnapshot(PEER, guild))) is None
    assert shown_in(joined, None) is None

"""Two transactions that wait for each other: PostgreSQL ends the one that has waited longer, which is run again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import asyncpg
import pytest
from msgspec.structs import replace

from openguild_proto.effects.base import StorageEffect
from openguild_proto.effects.channels import DeleteChannel
from openguild_proto.effects.deliveries import (
    BeginChains,
    ChainPoint,
    CursorMove,
    MoveChains,
    MoveCursors,
    ReadChains,
)
from openguild_proto.effects.guilds import DeleteGuild, InsertGuild, InsertInvite, RemoveMember
from openguild_proto.effects.handovers import BeginMove, HandOver
from openguild_proto.effects.mirrors import JoinFromServer, MirrorEvents, ReadSnapshot, RemoteJoin, StoreMirror
from openguild_proto.errors import Refusal
from openguild_proto.mirror_records import RemoteUser
from openguild_proto.policy.repeats import IdempotencyKey
from openguild_proto.records import Author, LogPosition, MemberChange
from openguild_runtime.storage.postgres import PostgresStorage
from tests.runtime.storage.test_handing_over import head, ours
from tests.support.deeds import NOW, add_channel, add_guild, add_user, login, new_id
from tests.support.guild_deeds import accept, invite
from tests.support.owner_server import OWNER, Owner
from tests.support.peers import PEER, join
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
HOLD_LOG = "SELECT FROM logs WHERE log_id = $1 FOR UPDATE"
HOLD_KEY = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"  # of an idempotency key, behind its user's id
HOLD_CHAIN = "SELECT FROM federation_chains WHERE log_id = $1 FOR UPDATE"
HOLD_INDEX = "SELECT search_hold_v1(ARRAY[$1::uuid])"


async def test_a_change_that_was_chosen_to_end_a_deadlock_is_made(database_url: str) -> None:
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        owner = await add_user(store)
        guild = await add_guild(store, owner)
        other, looker = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
        chosen: list[str] = []

        async def leave(user: str) -> None:
            effect = RemoveMember(author=Author(user), guild_id=guild, user_id=user, now_ms=NOW)
            assert await store.perform(effect) is MemberChange.DONE

        async def waiting() -> bool:
            return bool(await looker.fetchval(WAITING))

        while chosen[-1:] != ["the store"]:  # PostgreSQL ends whoever has waited for a second when it looks
            assert len(chosen) < 10, chosen
            user = await join(store, guild, owner)
            async with anyio.create_task_group() as both, other.transaction():
                await other.execute("SELECT FROM guilds WHERE guild_id = $1 FOR UPDATE", guild)
                both.start_soon(leave, user)
                await eventually(waiting, what="the store that waits")
                try:
                    await other.execute("SELECT FROM users WHERE user_id = $1 FOR UPDATE", user)
                except asyncpg.DeadlockDetectedError:
                    chosen.append("the other")
                else:
                    chosen.append("the store")
        await other.close()
        await looker.close()
        await store.aclose()


async def deadlocks(database_url: str) -> int:
    """Return how many there were, as far as the sessions that have ended know."""
    looker = await asyncpg.connect(database_url)
    count: int = await looker.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    await looker.close()
    return count


async def test_first_members_of_a_server_who_join_at_once_do_not_wait_for_each_other(database_url: str) -> None:
    """Nor do those who leave meanwhile, and join again."""
    before = await deadlocks(database_url)
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        owner = await add_user(store)
        for _ in range(6):
            guild, code, users = await add_guild(store, owner), new_id()[:12], [new_id() for _ in range(4)]
            await store.perform(InsertInvite(Author(owner), code, guild, None, None, NOW))

            async def come_and_go(user_id: str, code: str = code, guild: str = guild) -> None:
                user = RemoteUser(user_id, f"u{user_id[:8]}")
                for _ in range(2):
                    joined = await store.perform(JoinFromServer(PEER, user, code, "member", NOW, 1_000, True))
                    assert joined is None or isinstance(joined, RemoteJoin)  # None: they have left before it was shown
                    await store.perform(RemoveMember(Author(user_id), guild, user_id, NOW))

            async with anyio.create_task_group() as joins:
                for user_id in [*users, *users]:
                    joins.start_soon(come_and_go, user_id)
        await store.aclose()
    assert await deadlocks(database_url) == before


async def test_mirrors_that_begin_anew_do_not_wait_for_their_events_and_joins(database_url: str) -> None:
    """Each of several users who join at once gets a newer snapshot, and the events of the joins come meanwhile."""
    before = await deadlocks(database_url)
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        for _ in range(8):
            owner, users = Owner(), [await add_user(store) for _ in range(6)]

            async def become(joined: RemoteJoin, guild: str = owner.guild_id) -> None:
                await store.perform(StoreMirror(OWNER, guild, joined.snapshot, NOW, joined.member, joined.place))

            async def hear(after: int, owner: Owner = owner) -> None:
                news = owner.news(owner.guild_id, after)
                await store.perform(MirrorEvents(OWNER, owner.guild_id, owner.guild_id, 1, news))

            joins = [owner.join(user_id, f"u{user_id[:8]}") for user_id in users]
            async with anyio.create_task_group() as at_once:
                for joined in joins:
                    at_once.start_soon(become, joined)
                    at_once.start_soon(hear, joined.place.sequence - 1)
        await store.aclose()
    assert await deadlocks(database_url) == before


@asynccontextmanager
async def in_line(
    database_url: str, *keys: str, lock: str = HOLD_LOG
) -> AsyncIterator[Callable[[Awaitable[object]], Awaitable[None]]]:
    """While `lock` is held, for each key: begin effects, each of which waits before the next one begins. They go on at the end."""
    other, looker = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    begun = 0
    async with anyio.create_task_group() as tasks:

        async def perform(effect: Awaitable[object]) -> None:
            await effect

        async def begin(effect: Awaitable[object]) -> None:
            nonlocal begun
            begun += 1
            tasks.start_soon(perform, effect)

            async def waiting() -> bool:
                return await looker.fetchval(WAITING) == begun

            await eventually(waiting, what="an effect that waits")

        async with other.transaction():
            for key in keys:
                await other.execute(lock, key)
            yield begin
    await other.close()
    await looker.close()


async def test_a_deletion_waits_for_no_peer_that_waits_for_it(database_url: str) -> None:
    before = await deadlocks(database_url)
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        owner = await add_user(store)
        for reads in (True, False):
            guild, code = await add_guild(store, owner), new_id()[:12]
            channel = await add_channel(store, guild, owner)
            await join(store, guild, owner)
            await store.perform(InsertInvite(Author(owner), code, guild, None, None, NOW))
            peer: StorageEffect[object] = ReadSnapshot(PEER, guild)
            if not reads:
                peer = JoinFromServer(PEER, RemoteUser(new_id(), "late"), code, "member", NOW, 1_000, True)
            async with in_line(database_url, channel) as begin:
                await begin(store.perform(DeleteGuild(Author(owner), guild)))
                await begin(store.perform(peer))
        await store.aclose()
    assert await deadlocks(database_url) == before


async def test_a_handover_waits_for_no_delivery_that_waits_for_it(database_url: str) -> None:
    """The peer has a cursor in the guild's log, and gets one in a new channel."""
    before = await deadlocks(database_url)
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        made = await ours(store)
        channel = await add_channel(store, made.guild, made.owner)
        await store.perform(BeginMove(made.guild, made.peer, NOW))
        handover = HandOver(made.handover(), await head(store, made))
        places = [LogPosition(log_id, 1, 1) for log_id in (made.guild, channel)]
        async with in_line(database_url, channel) as begin:
            await begin(store.perform(handover))
            await begin(store.perform(MoveCursors(tuple(CursorMove(made.peer, place) for place in places))))
        await store.aclose()
    assert await deadlocks(database_url) == before


async def test_a_mirror_that_begins_anew_waits_for_no_login(database_url: str) -> None:
    """A user who is no member any more logs in, while another one joins."""
    before = await deadlocks(database_url)
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        owner, gone, late = Owner(), await add_user(store), await add_user(store)
        joined = owner.join(gone)
        await store.perform(StoreMirror(OWNER, owner.guild_id, joined.snapshot, NOW, joined.member))
        owner.do(RemoveMember(Author(gone), owner.guild_id, gone, NOW))
        await store.perform(login(gone, 1))
        again = owner.join(late)
        async with in_line(database_url, gone) as begin:
            await begin(store.perform(login(gone, 2)))
            await begin(
                store.perform(StoreMirror(OWNER, owner.guild_id, again.snapshot, NOW, again.member, again.place))
            )
        await store.aclose()
    assert await deadlocks(database_url) == before


async def test_the_first_join_from_a_server_and_the_end_of_a_channel_do_not_wait_for_each_other(
    database_url: str,
) -> None:
    """The join begins a cursor in each channel of the guild; the deletion is held up behind the lock of the channel's log."""
    before = await deadlocks(database_url)
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        owner = await add_user(store)
        guild, code = await add_guild(store, owner), new_id()[:12]
        channel = await add_channel(store, guild, owner)
        await store.perform(InsertInvite(Author(owner), code, guild, None, None, NOW))
        first = JoinFromServer(PEER, RemoteUser(new_id(), "first"), code, "member", NOW, 1_000, True)
        joined: list[object] = []

        async def join_first() -> None:
            joined.append(await store.perform(first))

        async with in_line(database_url, channel, lock=HOLD_INDEX) as begin:
            await begin(store.perform(DeleteChannel(Author(owner), channel, NOW)))
            await begin(join_first())
        assert isinstance(joined[0], RemoteJoin)
        assert joined[0].snapshot is not None
        assert joined[0].snapshot.channels == []
        await store.aclose()
    assert await deadlocks(database_url) == before


async def test_a_guild_and_a_join_with_one_key_do_not_wait_for_each_other(database_url: str) -> None:
    before = await deadlocks(database_url)
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        owner, user = await add_user(store), await add_user(store)
        code = await invite(store, await add_guild(store, owner), owner)
        once = [IdempotencyKey("key", bytes([number]) * 32) for number in range(2)]

        async def join() -> None:
            with pytest.raises(Refusal):
                await store.perform(replace(accept(code, user), once=once[1]))

        async with in_line(database_url, f"{user}key", lock=HOLD_KEY) as begin:
            await begin(store.perform(InsertGuild(Author(user), new_id(), "guild", NOW, once=once[0])))
            await begin(join())
        await store.aclose()
    assert await deadlocks(database_url) == before


async def test_processes_that_store_the_same_chains_do_not_wait_for_each_other(database_url: str) -> None:
    before = await deadlocks(database_url)
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        owner = await add_user(store)
        guild = await add_guild(store, owner)
        one, other = sorted([await add_channel(store, guild, owner) for _ in range(2)])

        def points(*log_ids: str, sequence: int) -> tuple[ChainPoint, ...]:
            return tuple(ChainPoint(LogPosition(log_id, 1, sequence), b"%d" % sequence) for log_id in log_ids)

        await store.perform(BeginChains(points(one, other, sequence=0)))
        async with in_line(database_url, other, lock=HOLD_CHAIN) as begin:
            await begin(store.perform(MoveChains(points(other, one, sequence=2), ())))
            await begin(store.perform(MoveChains(points(one, other, sequence=1), ())))
        places = tuple(point.place for point in points(one, other, sequence=2))
        stored = await store.perform(ReadChains(places, 10))
        assert [part.point for part in stored] == list(points(one, other, sequence=2))
        await store.aclose()
    assert await deadlocks(database_url) == before

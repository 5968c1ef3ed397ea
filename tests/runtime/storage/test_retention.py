"""What has expired goes without anybody logging in, a little at a time (PROTOCOL 11.6.3)."""

from __future__ import annotations

import time
import uuid

import anyio
import asyncpg
import msgspec
import pytest

from openguild_proto.effects.accounts import FindSession, ListDevices
from openguild_proto.effects.attempts import AttemptKey, CountAttempt
from openguild_proto.effects.channels import DeleteChannel, MarkRead, ReadEvents
from openguild_proto.effects.guilds import DeleteGuild
from openguild_proto.effects.retention import PruneExpired, PurgeDeleted
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.effects.search import IndexMessages
from openguild_proto.records import Author, Mentions, React
from openguild_proto.settings.sections import SessionSettings
from openguild_runtime.server.retention import prune, prune_forever
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.postgres import PostgresStorage, deleted_logs
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from tests.support.deeds import DAY, NOW, add_channel, add_guild, add_user, append, control_head, controls, heads, login
from tests.support.messages import changing, post, stored
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

NOTHING = PruneExpired(
    now_ms=0, from_user=str(uuid.UUID(int=0)), control_before_ms=0, attempts_before_ms=0, answers_before_ms=0, limit=100
)


async def test_sessions_of_users_who_stay_away(storage: Storage) -> None:
    alice, bob = sorted([await add_user(storage), await add_user(storage)])
    old, living, unseen = login(alice, 1, "old"), login(alice, 2, "new", now_ms=NOW + 31 * DAY), login(bob, 3)
    for session in (old, unseen):
        await storage.perform(session)
    later = msgspec.structs.replace(NOTHING, now_ms=NOW + 31 * DAY)
    await storage.perform(msgspec.structs.replace(later, limit=1))
    assert await storage.perform(FindSession(session_id=old.session_id)) is None
    assert await storage.perform(FindSession(session_id=unseen.session_id)) is not None, "beyond the limit"
    await storage.perform(living)
    await storage.perform(msgspec.structs.replace(later, from_user=bob))
    assert await storage.perform(FindSession(session_id=unseen.session_id)) is None
    assert await storage.perform(FindSession(session_id=living.session_id)) is not None
    devices = await storage.perform(ListDevices(user_id=alice, now_ms=NOW + 31 * DAY))
    assert [device.device_id for device in devices] == ["new"]


async def test_the_control_log_keeps_what_is_young(storage: Storage) -> None:
    user = await add_user(storage)
    for _ in range(3):
        await add_guild(storage, user)
    now_ms = int(time.time() * 1000)
    kept = msgspec.structs.replace(NOTHING, now_ms=now_ms, control_before_ms=now_ms - DAY, limit=2)
    assert not await storage.perform(kept)
    head = await control_head(storage)
    assert [record.sequence for record in await controls(storage, 0, 10)] == list(range(1, head + 1))
    old = msgspec.structs.replace(kept, now_ms=now_ms + 2 * DAY, control_before_ms=now_ms + DAY)
    assert await storage.perform(old), "there is more"
    assert [record.sequence for record in await controls(storage, 0, 10)] == list(range(3, head + 1))
    while await storage.perform(old):
        pass
    assert await controls(storage, 0, 10) == []
    assert await control_head(storage) == head
    await add_guild(storage, user)
    assert [record.sequence for record in await controls(storage, head, 10)] == [head + 1]


async def test_attempts_and_nothing_else(storage: Storage) -> None:
    user = await add_user(storage)
    channel = await add_channel(storage, await add_guild(storage, user), user)
    await storage.perform(append(channel))
    count = CountAttempt(keys=(AttemptKey(b"a" * 32, 1),), window_secs=60, now_ms=NOW)
    assert await storage.perform(count) is None
    assert await storage.perform(count) is not None
    await storage.perform(msgspec.structs.replace(NOTHING, attempts_before_ms=NOW - DAY))
    assert await storage.perform(count) is not None
    await storage.perform(msgspec.structs.replace(NOTHING, attempts_before_ms=NOW + DAY))
    assert await storage.perform(count) is None
    assert await heads(storage, [channel]) == {channel: 1}


async def test_the_job_keeps_what_the_clock_says(storage: Storage) -> None:
    user = await add_user(storage)
    now_ms = int(time.time() * 1000)
    old, living = login(user, 1, "old", now_ms=now_ms - 31 * DAY), login(user, 2, "new", now_ms=now_ms)
    await storage.perform(living)
    await storage.perform(old)
    await add_guild(storage, user)
    await prune(storage, ClocksAndEntropy(random_bytes=bytes), 60)
    assert await storage.perform(FindSession(session_id=old.session_id)) is None
    assert await storage.perform(FindSession(session_id=living.session_id)) is not None
    assert len(await controls(storage, 0, 10)) == await control_head(storage)


async def test_attempts_are_kept_for_a_window_that_was_raised(storage: Storage) -> None:
    now_ms = int(time.time() * 1000)
    count = CountAttempt(keys=(AttemptKey(b"a" * 32, 1),), window_secs=3_600, now_ms=now_ms - 600_000)
    assert await storage.perform(count) is None
    later = msgspec.structs.replace(count, now_ms=now_ms)
    session, looks = SessionSettings(login_window_secs=3_600), 0

    def settings() -> SessionSettings:
        nonlocal looks
        looks += 1
        return session

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(prune_forever, storage, ClocksAndEntropy(), settings, 0.001)
        await eventually(lambda: looks > 2, what="a whole round")
        assert await storage.perform(later) is not None
        session = SessionSettings(login_window_secs=60)

        async def forgotten() -> bool:
            return await storage.perform(later) is None

        await eventually(forgotten, what="the shorter window")
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("whole_guild", [False, True], ids=["channel", "guild"])
async def test_large_logs_go_behind_their_deletion(
    whole_guild: bool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once nothing finds them; their rows go a little at a time, and those of other logs stay."""
    monkeypatch.setattr(deleted_logs, "MAX_ROWS_AT_ONCE", 25)
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        user, mentioned = await add_user(store), await add_user(store)
        guild, other = await add_guild(store, user), await add_guild(store, user)
        for joined in (guild, other):
            await store.perform(GrantGuildRole(guild_id=joined, user_id=mentioned, role="member", now_ms=NOW))
        large, kept = await add_channel(store, guild, user), await add_channel(store, other, user)
        for channel in (large, kept):
            for number in range(30):
                mentions = Mentions((mentioned,), (), everyone=True)
                message = await stored(
                    store, msgspec.structs.replace(post(channel, user, f"{number}"), mentions=mentions)
                )
                await store.perform(changing(channel, user, React(message.event_id, "x", adds=True)))
        while await store.perform(IndexMessages(everywhere=True)):
            pass
        connection = await asyncpg.connect(database_url)

        async def rows(log_id: str) -> dict[str, int]:
            counts = {
                table: await connection.fetchval(f"SELECT count(*) FROM {table} WHERE {log} = $1", log_id)
                for table, log in {**deleted_logs.CONTENTS, "logs": "log_id"}.items()
            }
            return {table: count for table, count in counts.items() if count}

        before = await rows(kept)
        assert before.keys() == {*deleted_logs.CONTENTS, "logs"}
        assert not await store.perform(PurgeDeleted(10))
        author = Author(user)
        if whole_guild:
            await store.perform(DeleteGuild(author=author, guild_id=guild))
        else:
            await store.perform(DeleteChannel(author=author, channel_id=large, now_ms=NOW))
        assert await store.perform(ReadEvents(log_id=large, limit=5, after=0)) is None
        assert (await rows(large))["log_events"] == 60
        batches = 0
        while await store.perform(PurgeDeleted(25)):
            batches += 1
        assert batches > 5
        assert await rows(large) == {}
        assert await rows(kept) == before
        assert await rows(guild) == {} or not whole_guild
        assert await connection.fetchval("SELECT count(*) FROM deleted_logs") == 0
        await connection.close()
        await store.aclose()


async def test_many_mentions_go_behind_the_deletion(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The channel has few messages, each of which mentions many."""
    monkeypatch.setattr(deleted_logs, "MAX_ROWS_AT_ONCE", 25)
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        user = await add_user(store)
        members = tuple([await add_user(store) for _ in range(4)])
        guild = await add_guild(store, user)
        for member in members:
            await store.perform(GrantGuildRole(guild_id=guild, user_id=member, role="member", now_ms=NOW))
        channel = await add_channel(store, guild, user)
        for number in range(6):
            await stored(store, msgspec.structs.replace(post(channel, user, f"{number}"), mentions=Mentions(members)))
        connection = await asyncpg.connect(database_url)

        async def mentions() -> int:
            count: int = await connection.fetchval("SELECT count(*) FROM mentions WHERE log_id = $1", channel)
            return count

        await store.perform(DeleteChannel(author=Author(user), channel_id=channel, now_ms=NOW))
        assert await mentions() == 24
        while await store.perform(PurgeDeleted(10)):
            pass
        assert await mentions() == 0
        await connection.close()
        await store.aclose()


async def test_read_positions_of_many_members_go_behind_the_deletion(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channels have few events, and every member has a read position in each."""
    monkeypatch.setattr(deleted_logs, "MAX_ROWS_AT_ONCE", 25)
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        user = await add_user(store)
        members = [user, *[await add_user(store) for _ in range(12)]]
        guild, other = await add_guild(store, user), await add_guild(store, user)
        channels = [await add_channel(store, each, user) for each in (guild, guild, other)]
        for joined in (guild, other):
            for member in members[1:]:
                await store.perform(GrantGuildRole(guild_id=joined, user_id=member, role="member", now_ms=NOW))
        for channel in channels:
            await stored(store, post(channel, user, "hi"))
            for member in members:
                await store.perform(MarkRead(author=Author(member), channel_id=channel, sequence=None, now_ms=NOW))
        connection = await asyncpg.connect(database_url)

        async def positions() -> list[int]:
            counted = "SELECT count(*) FROM channel_read_state WHERE channel_id = $1"
            return [await connection.fetchval(counted, channel) for channel in channels]

        assert await positions() == [13, 13, 13]
        await store.perform(DeleteGuild(author=Author(user), guild_id=guild))
        assert await positions() == [13, 13, 13]
        while await store.perform(PurgeDeleted(10)):
            pass
        assert await positions() == [0, 0, 13]
        assert await connection.fetchval("SELECT count(*) FROM deleted_logs") == 0
        await store.perform(DeleteChannel(author=Author(user), channel_id=channels[2], now_ms=NOW))
        assert await positions() == [0, 0, 0], "few go at once"
        await connection.close()
        await store.aclose()

"""What only PostgreSQL does: locks that others hold, events it refuses, commits under way at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import asyncpg
import msgspec
import pytest
import structlog

from openguild_proto.effects import Overloaded, StorageEffect, StorageUnavailable
from openguild_proto.effects.channels import Appended, AppendEvent, FindChannelAccess, MarkRead, UpdateChannel
from openguild_proto.effects.guilds import AcceptInvite, InsertInvite, RemoveMember
from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole
from openguild_proto.errors import ErrorCode, LocalProtocolError, Refusal
from openguild_proto.log import commits
from openguild_proto.records import Author, MemberRecord
from openguild_runtime.storage import migrations
from openguild_runtime.storage.postgres import PostgresStorage
from openguild_runtime.storage.postgres.values import Connection
from tests.support.busy import fair_secs
from tests.support.deeds import NOW, add_channel, add_guild, add_user, append, heads, new_id
from tests.support.storage_handler import HeardFromStorage
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(
    url: str, *, committers: int = 1, statement_timeout_secs: float = 10.0
) -> AsyncIterator[PostgresStorage]:
    """With one committer all channels share its heard.batches."""
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(url, tasks, committers=committers, statement_timeout_secs=statement_timeout_secs)
        await store.start()
        yield store
        await store.aclose()


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStorage]:
    async with opened(database_url) as store:
        yield store


@pytest.fixture
async def rival(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Somebody else at the same database."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def add_channels(store: PostgresStorage, count: int) -> list[str]:
    owner = await add_user(store)
    guild = await add_guild(store, owner)
    return [await add_channel(store, guild, owner, f"c{number}") for number in range(count)]


async def perform_all(store: PostgresStorage, *effects: AppendEvent) -> list[Appended | Exception]:
    """Asked for at once, so they share a batch; the outcome of each."""
    outcomes: dict[str, Appended | Exception] = {}

    async def perform(effect: AppendEvent) -> None:
        try:
            outcome = await store.perform(effect)
        except Exception as failure:
            outcomes[effect.event_id] = failure
        else:
            assert isinstance(outcome, Appended)
            outcomes[effect.event_id] = outcome

    async with anyio.create_task_group() as tasks:
        for effect in effects:
            tasks.start_soon(perform, effect)
    return [outcomes[effect.event_id] for effect in effects]


async def somebody_waits_for(rival: Connection) -> bool:
    return bool(
        await rival.fetchval(
            "SELECT count(DISTINCT pid) FROM pg_locks WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        )
    )


# --- locks -----------------------------------------------------------------------------------------


async def test_who_accepts_an_invite_waits_for_who_deletes_the_guild(
    store: PostgresStorage, rival: asyncpg.Connection[asyncpg.Record]
) -> None:
    """And not each for the other."""
    owner, joins = [await add_user(store) for _ in range(2)]
    guild = await add_guild(store, owner)
    invite = InsertInvite(
        author=Author(owner), code=new_id(), guild_id=guild, max_uses=None, expires_at_ms=None,
        limit=10, now_ms=NOW,
    )  # fmt: skip
    assert await store.perform(invite) is not None
    accepted: list[MemberRecord | None] = []

    async def accept() -> None:
        accepted.append(
            await store.perform(AcceptInvite(author=Author(joins), code=invite.code, role="member", now_ms=NOW))
        )

    async with anyio.create_task_group() as tasks, rival.transaction():
        await rival.execute("SELECT FROM guilds WHERE guild_id = $1 FOR UPDATE", guild)
        tasks.start_soon(accept)
        await eventually(lambda: somebody_waits_for(rival))
        await rival.execute("DELETE FROM guilds WHERE guild_id = $1", guild)
    assert accepted == [None]


@pytest.mark.parametrize("what", ["read", "join", "grant"])
async def test_a_channel_that_is_deleted_meanwhile_is_not_there(
    store: PostgresStorage, rival: asyncpg.Connection[asyncpg.Record], what: str
) -> None:
    """Its row is still seen and goes before one that refers to it is stored."""
    owner, other = [await add_user(store) for _ in range(2)]
    guild = await add_guild(store, owner)
    channel = await add_channel(store, guild, owner)
    await store.perform(append(channel))
    invite = InsertInvite(
        author=Author(owner), code=new_id(), guild_id=guild, max_uses=None, expires_at_ms=None, now_ms=NOW
    )
    await store.perform(invite)
    effects: dict[str, StorageEffect[Any]] = {
        "read": MarkRead(author=Author(owner), channel_id=channel, sequence=None, now_ms=NOW),
        "join": AcceptInvite(author=Author(other), code=invite.code, role="member", now_ms=NOW),
        "grant": GrantChannelRole(channel_id=channel, user_id=other, role="viewer", now_ms=NOW),
    }
    outcomes: list[Any] = []

    async def perform() -> None:
        try:
            outcomes.append(await store.perform(effects[what]))
        except Refusal as refusal:
            outcomes.append(refusal.code)

    async with anyio.create_task_group() as tasks, rival.transaction():
        await rival.execute("DELETE FROM channels WHERE channel_id = $1", channel)
        tasks.start_soon(perform)
        await eventually(lambda: somebody_waits_for(rival))
    if what == "join":
        assert isinstance(outcomes[0], MemberRecord)
    else:
        assert outcomes == [ErrorCode.NOT_FOUND if what == "read" else False]


@pytest.mark.parametrize("what", ["post", "read", "kick", "invite", "rename"])
async def test_who_acts_by_a_right_waits_for_who_takes_it(
    store: PostgresStorage, rival: asyncpg.Connection[asyncpg.Record], what: str
) -> None:
    """A removal that has not committed yet holds the user's row: the change is decided after it."""
    owner, admin, other = [await add_user(store) for _ in range(3)]
    guild = await add_guild(store, owner)
    channel = await add_channel(store, guild, owner)
    for user_id, role in ((admin, "admin"), (other, "member")):
        await store.perform(GrantGuildRole(guild_id=guild, user_id=user_id, role=role, now_ms=NOW))
    author = Author(admin)
    effects: dict[str, StorageEffect[Any]] = {
        "post": append(channel, admin, author=author),
        "read": MarkRead(author=author, channel_id=channel, sequence=None, now_ms=NOW),
        "kick": RemoveMember(author=author, guild_id=guild, user_id=other, now_ms=NOW),
        "invite": InsertInvite(
            author=author, code=new_id(), guild_id=guild, max_uses=None, expires_at_ms=None, now_ms=NOW
        ),
        "rename": UpdateChannel(author=author, channel_id=channel, name="x", now_ms=NOW),
    }
    refusals: list[ErrorCode] = []

    async def perform() -> None:
        with pytest.raises(Refusal) as refusal:
            await store.perform(effects[what])
        refusals.append(refusal.value.code)

    async with anyio.create_task_group() as tasks, rival.transaction():
        await rival.execute("SELECT FROM users WHERE user_id = $1 FOR UPDATE", admin)
        await rival.execute("DELETE FROM guild_memberships WHERE user_id = $1", admin)
        tasks.start_soon(perform)
        await eventually(lambda: somebody_waits_for(rival))
    assert refusals == [ErrorCode.NOT_FOUND]


async def test_new_epochs_while_servers_post(store: PostgresStorage, database_url: str) -> None:
    """After a failover nobody stops them: channels are locked in the order in which posts lock them."""
    channels = await add_channels(store, 40)
    done = False

    async def renew() -> None:
        nonlocal done
        for _ in range(5):
            await migrations.renew_epochs(database_url)
        done = True

    posted = 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(renew)
        while not done:
            outcomes = await perform_all(store, *(append(channel) for channel in channels))
            assert all(isinstance(outcome, Appended) for outcome in outcomes)
            posted += 1
    assert await heads(store, channels) == dict.fromkeys(channels, posted)
    accesses = [await store.perform(FindChannelAccess(channel_id=channel, user_id=new_id())) for channel in channels]
    assert len({access.channel.epoch for access in accesses if access is not None}) == len(channels)


async def test_a_locked_channel_is_refused_and_holds_up_no_other(
    store: PostgresStorage, rival: asyncpg.Connection[asyncpg.Record]
) -> None:
    locked, free = await add_channels(store, 2)
    async with rival.transaction():
        await rival.execute("SELECT FROM logs WHERE log_id = $1 FOR UPDATE", locked)
        with anyio.fail_after(5):
            refused, stored, also_refused = await perform_all(store, append(locked), append(free), append(locked))
        assert isinstance(refused, Overloaded)
        assert isinstance(also_refused, Overloaded)
        assert isinstance(stored, Appended)
        asked = fair_secs()
        with pytest.raises(Overloaded):
            await store.perform(append(locked))
        assert fair_secs() - asked < 0.2, "at once: it does not ask the database"
        with anyio.fail_after(5):
            for _ in range(20):
                await store.perform(append(free))

    async def stored_at_last() -> bool:
        try:
            return isinstance(await store.perform(append(locked)), Appended)
        except Overloaded:
            return False

    await eventually(stored_at_last)
    assert await heads(store, [locked, free]) == {locked: 1, free: 21}, "dense, and nothing of what was refused"


async def test_a_locked_table_refuses_every_channel_in_bounded_time(
    store: PostgresStorage, rival: asyncpg.Connection[asyncpg.Record]
) -> None:
    channels = await add_channels(store, 60)
    async with rival.transaction():
        await rival.execute("LOCK TABLE log_events")
        with anyio.fail_after(8):
            outcomes = await perform_all(store, *[append(channel) for channel in channels])
        assert {type(outcome) for outcome in outcomes} == {Overloaded}
    assert set((await heads(store, channels)).values()) == {0}


async def test_replicas_that_post_into_one_channel_refuse_nothing(database_url: str) -> None:
    """The ordinary wait for another replica's commit is no reason to refuse."""
    async with opened(database_url) as here, opened(database_url) as there:
        (channel,) = await add_channels(here, 1)
        sequences: list[int] = []

        async def post(store: PostgresStorage) -> None:
            for _ in range(20):
                outcome = await store.perform(append(channel))
                assert isinstance(outcome, Appended)
                sequences.append(outcome.event.sequence)

        async with anyio.create_task_group() as posters:
            for _ in range(32):
                posters.start_soon(post, here)
                posters.start_soon(post, there)
        assert sorted(sequences) == list(range(1, 1_281))


async def test_a_process_that_stands_still_in_a_transaction_loses_its_locks(database_url: str) -> None:
    async with opened(database_url, statement_timeout_secs=1) as still, opened(database_url) as other:
        (channel,) = await add_channels(other, 1)
        locked, awake = anyio.Event(), anyio.Event()

        async def stand_still(connection: Connection) -> None:
            async with connection.transaction():
                await connection.execute("SELECT FROM logs WHERE log_id = $1 FOR UPDATE", channel)
                locked.set()
                await awake.wait()

        async def hold() -> None:
            with pytest.raises(StorageUnavailable):
                await still._with_connection(stand_still)

        async def stored() -> bool:
            try:
                return isinstance(await other.perform(append(channel)), Appended)
            except Overloaded:
                return False

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold)
            await locked.wait()
            await eventually(stored)
            awake.set()


# --- events that PostgreSQL refuses ----------------------------------------------------------------


async def test_an_event_that_cannot_be_stored_fails_alone_and_is_logged_without_its_content(
    store: PostgresStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "RETRY_LIMIT_SECS", 60.0)  # a busy machine takes longer than a second
    (channel,) = await add_channels(store, 1)
    store.attach(heard := HeardFromStorage())
    effects = [append(channel, text=f"number {number}") for number in range(100)]
    effects[37] = msgspec.structs.replace(effects[37], event_type="secret \0")
    effects[80] = msgspec.structs.replace(effects[80], channel_id="no identifier")
    with structlog.testing.capture_logs() as logged:
        outcomes = await perform_all(store, *effects)
    failed = {place for place, outcome in enumerate(outcomes) if not isinstance(outcome, Appended)}
    assert failed == {37, 80}
    assert isinstance(outcomes[37], LocalProtocolError)
    assert isinstance(outcomes[80], LocalProtocolError)
    assert sum(heard.batches) == 98
    assert len(heard.batches) < 20, "not one by one"
    sequences = [outcome.event.sequence for outcome in outcomes if isinstance(outcome, Appended)]
    assert sequences == list(range(1, 99)), "in order, without holes"
    errors = {record["event_id"] for record in logged if record["log_level"] == "error"}
    assert errors == {effects[37].event_id, effects[80].event_id}
    assert "secret" not in str([outcomes[37], outcomes[80], logged])


# --- the end ---------------------------------------------------------------------------------------


async def test_what_was_begun_is_finished_and_what_waits_is_refused(
    database_url: str, rival: asyncpg.Connection[asyncpg.Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "LOCK_TIMEOUT_MS", 10_000)
    outcomes: dict[str, object] = {}
    async with opened(database_url) as store:
        (channel,) = await add_channels(store, 1)

        async def post(name: str) -> None:
            try:
                outcomes[name] = await store.perform(append(channel))
            except StorageUnavailable as failure:
                outcomes[name] = type(failure)

        async with anyio.create_task_group() as tasks, rival.transaction():
            await rival.execute("SELECT FROM logs WHERE log_id = $1 FOR UPDATE", channel)
            tasks.start_soon(post, "begun")
            await eventually(lambda: somebody_waits_for(rival))
            tasks.start_soon(post, "waiting")
            await eventually(lambda: store.stats().queue_events)
            tasks.start_soon(store.aclose)
            await eventually(lambda: "waiting" in outcomes)
            assert "begun" not in outcomes
        assert isinstance(outcomes["begun"], Appended)
        assert outcomes["waiting"] is StorageUnavailable
        with pytest.raises(StorageUnavailable):
            await store.perform(append(channel))
        with pytest.raises(StorageUnavailable):
            await store.perform(FindChannelAccess(channel_id=channel, user_id=new_id()))

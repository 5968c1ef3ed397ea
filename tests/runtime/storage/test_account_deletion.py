"""Accounts that are deleted, on both stores, and in PostgreSQL beside all that their users and others do (PROTOCOL 4.9)."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from functools import partial
from itertools import count

import anyio
import asyncpg
import pytest
from msgspec.structs import replace

from openguild_proto.effects.accounts import (
    DeleteAccount,
    FindSession,
    FindUser,
    FindUserByName,
    InsertUser,
    ListOwnedAlone,
    RotateRefresh,
)
from openguild_proto.effects.bans import BanUser
from openguild_proto.effects.base import StorageEffect
from openguild_proto.effects.channels import Appended, MarkRead
from openguild_proto.effects.guilds import AcceptInvite, InsertInvite, RemoveMember
from openguild_proto.effects.logs import FindLogHead, ReadLogs
from openguild_proto.effects.mentions import ListMentions
from openguild_proto.effects.mirrors import TOLD_MS, FindPendingLeaves, NotePendingLeave, StoreMirror
from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole, GrantServerRole, RevokeServerRole
from openguild_proto.errors import Refusal
from openguild_proto.operations.account_deletion import delete_by_operator
from openguild_proto.policy.account_deletion import DELETED_USERNAME, AccountDeletion
from openguild_proto.records import Author, ControlKind, LogPart, Mentions
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.postgres import PostgresStorage
from openguild_runtime.system.operations import drive
from tests.runtime.storage.test_mirrors import level, mirrored, register
from tests.support.deeds import (
    DAY,
    NOW,
    add_channel,
    add_guild,
    add_user,
    append,
    login,
    new_id,
    perform_unless_locked,
    token,
)
from tests.support.owner_server import HERE, OWNER, Owner
from tests.support.passwords import PASSWORD_HASH
from tests.support.storage_handler import HeardFromStorage
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

_logins = count(70_000)
ROUNDS = 25
NAMING = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = current_schema() AND data_type IN ('uuid', 'text') AND column_name = ANY ($1::text[])
"""
OF_USERS = ["user_id", "created_by", "log_id"]
KEPT = {"control_log", "guild_bans", "reactions", "mentions"}
"""Tables that name users whose account is deleted."""


def delete(user_id: str, session_id: str | None = None, checked_hash: str = PASSWORD_HASH) -> DeleteAccount:
    return DeleteAccount(author=Author(user_id, session_id), checked_hash=checked_hash, now_ms=NOW + 1)


def invite(guild: str, user_id: str) -> InsertInvite:
    return InsertInvite(
        author=Author(user_id), code=new_id(), guild_id=guild, max_uses=None, expires_at_ms=None, now_ms=NOW
    )  # fmt: skip


async def test_what_is_the_users_alone_goes_and_replicas_hear_of_it(storage: Storage) -> None:
    alice, bob = await add_user(storage), await add_user(storage, "Bob")
    guild = await add_guild(storage, alice)
    channel = await add_channel(storage, guild, alice)
    await storage.perform(GrantServerRole(user_id=bob, role="admin", now_ms=NOW))
    await storage.perform(GrantChannelRole(channel_id=channel, user_id=bob, role="viewer", now_ms=NOW))
    await storage.perform(invite(guild, bob))
    opened = login(bob, next(_logins))
    assert await storage.perform(opened)
    mentions = Mentions((bob,), (), everyone=False)
    await storage.perform(replace(append(channel, alice, "@bob", author=Author(alice)), mentions=mentions))
    posted = await storage.perform(append(channel, bob, author=Author(bob, opened.session_id)))
    storage.attach(heard := HeardFromStorage())
    assert await storage.perform(delete(bob, opened.session_id)) is AccountDeletion.DONE
    assert [(record.kind, record.user_id, record.session_ids) for record in heard.records] == [
        (ControlKind.SESSIONS_REVOKED, bob, (opened.session_id,))
    ]
    assert [event.log_id for event in heard.events if event.log_id in {guild, bob}] == [guild], "the invite has ended"
    assert await storage.perform(FindUser(user_id=bob)) is None
    assert await storage.perform(FindUserByName(username_key="bob")) is None
    assert await storage.perform(FindSession(session_id=opened.session_id)) is None
    assert await storage.perform(FindLogHead(log_id=bob)) is None
    assert await storage.perform(ListMentions(user_id=bob, unread=False, limit=10)) == ()
    kept = await storage.perform(ReadLogs(parts=(LogPart(channel, 0, 10),)))
    assert isinstance(posted, Appended)
    assert kept[-1].event_id == posted.event.event_id, "messages stay"
    again = InsertUser(
        user_id=new_id(), username="Bob", username_key="bob", password_hash=PASSWORD_HASH, now_ms=NOW
    )  # fmt: skip
    assert await storage.perform(again) is True


async def test_it_is_refused_where_it_may_not_be(storage: Storage) -> None:
    alice = await add_user(storage)
    guild = await add_guild(storage, alice)
    opened = login(alice, next(_logins))
    assert await storage.perform(opened)
    assert await storage.perform(delete(alice, checked_hash="stale")) is AccountDeletion.STALE
    assert await storage.perform(delete(alice)) is AccountDeletion.IN_GUILDS
    for author in (Author(alice, new_id()), Author(new_id())):
        with pytest.raises(Refusal, match="unauthorized"):
            await storage.perform(replace(delete(alice), author=author))
    assert [each.guild_id for each in await storage.perform(ListOwnedAlone(user_id=alice, limit=9))] == [guild]
    bob = await add_user(storage)
    await storage.perform(GrantGuildRole(guild_id=guild, user_id=bob, role="owner", now_ms=NOW))
    assert await storage.perform(ListOwnedAlone(user_id=alice, limit=9)) == ()
    assert await storage.perform(FindUser(user_id=alice)) is not None


async def test_guilds_that_are_owned_alone_come_in_order_and_within_the_limit(storage: Storage) -> None:
    alice = await add_user(storage)
    guilds = [await add_guild(storage, alice, now_ms=NOW + number) for number in range(4)]
    found = await storage.perform(ListOwnedAlone(user_id=alice, limit=3))
    assert [each.guild_id for each in found] == guilds[:3]


async def test_a_login_to_a_deleted_account_opens_no_session(storage: Storage) -> None:
    alice = await add_user(storage)
    assert await storage.perform(delete(alice)) is AccountDeletion.DONE
    assert await storage.perform(login(alice, next(_logins))) is False


async def test_owners_are_told_of_partings_of_deleted_accounts(storage: Storage) -> None:
    alice, guild = await add_user(storage), new_id()
    await storage.perform(NotePendingLeave(origin="owner.test", guild_id=guild, user_id=alice, due_ms=NOW, now_ms=NOW))
    assert await storage.perform(delete(alice)) is AccountDeletion.DONE
    (pending,) = await storage.perform(FindPendingLeaves(origin="owner.test", now_ms=NOW + TOLD_MS + 1, limit=10))
    assert (pending.guild_id, pending.user.user_id, pending.user.username) == (guild, alice, DELETED_USERNAME)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Storage]:
    """With so many connections that transactions do run at once."""
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks, pool_size=16)
        await store.start()
        yield store
        await store.aclose()


@pytest.fixture
async def looker(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def test_nothing_is_left_of_an_account_whatever_runs_beside_its_deletion(
    store: Storage, looker: asyncpg.Connection
) -> None:
    alice = await add_user(store)
    guild, other = await add_guild(store, alice), await add_guild(store, alice)
    channel = await add_channel(store, guild, alice)
    way_in = invite(other, alice)
    await store.perform(way_in)
    columns = [row for row in await looker.fetch(NAMING, OF_USERS) if row["table_name"] not in KEPT]
    assert {row["table_name"] for row in columns} >= {"users", "sessions", "invites", "channel_read_state", "logs"}
    order = random.Random(7)
    for turn in range(ROUNDS):
        bob, number = await add_user(store), next(_logins)
        phone = login(bob, number)
        assert await store.perform(phone)
        author = Author(bob, phone.session_id)
        await store.perform(GrantGuildRole(guild_id=guild, user_id=bob, role="maintainer", now_ms=NOW))
        beside = effects_beside(alice, author, number, guild, channel, way_in.code)
        order.shuffle(beside)

        async def act(make: Callable[[], StorageEffect[object]]) -> None:
            try:
                await perform_unless_locked(store, make())
            except Refusal:
                return

        async def end(user_id: str = bob) -> None:
            for _ in range(5):  # others make them a member again
                try:
                    assert await drive(delete_by_operator(user_id, NOW + 1), store.perform) is not None
                    return
                except Refusal:
                    continue
            raise AssertionError("the account is still there")

        async with anyio.create_task_group() as tasks:
            for make in beside[: len(beside) // 2]:
                tasks.start_soon(act, make)
            tasks.start_soon(end)
            for make in beside[len(beside) // 2 :]:
                tasks.start_soon(act, make)
        for row in columns:
            named = f"SELECT count(*) FROM {row['table_name']} WHERE {row['column_name']}::text = $1"
            assert await looker.fetchval(named, bob) == 0, (turn, row)


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.mark.parametrize("answers", [False, True], ids=["plain posts", "others"])
async def test_a_delivery_of_what_the_user_wrote_does_not_fail(
    store: Storage, database_url: str, looker: asyncpg.Connection, long_lock_timeout: None, answers: bool
) -> None:
    owner = Owner()
    bob, carol = await mirrored(store, owner), await register(store, "carol")
    joined = owner.join(carol, "carol")
    await store.perform(StoreMirror(OWNER, owner.guild_id, None, NOW, joined=joined.member, stands=joined.place))
    first = owner.post("first")
    await level(store, owner, owner.channel_id)
    more = {"reply_to": first.event_id} if answers else {}
    owner.append("message", {"content": "by bob", **more}, sender=bob, home=HERE)
    other = await asyncpg.connect(database_url)

    async def end() -> None:
        assert await drive(delete_by_operator(bob, NOW + 1), store.perform) is not None

    async def waiting(transactions: int) -> bool:
        return bool(await looker.fetchval(WAITING) >= transactions)

    async def is_over_or_waits() -> bool:
        return await waiting(2) or await store.perform(FindUser(user_id=bob)) is None

    async with anyio.create_task_group() as tasks, other.transaction():
        await other.execute("SELECT FROM logs WHERE log_id = $1 FOR UPDATE", owner.channel_id)
        tasks.start_soon(partial(level, store, owner, owner.channel_id))
        await eventually(lambda: waiting(1))
        tasks.start_soon(end)
        await eventually(is_over_or_waits)
    place = await store.perform(FindLogHead(log_id=owner.channel_id))
    assert place is not None
    assert place.sequence == owner.do(FindLogHead(log_id=owner.channel_id)).sequence
    assert await store.perform(FindUser(user_id=bob)) is None
    assert await looker.fetchval("SELECT count(*) FROM channel_read_state WHERE user_id = $1", bob) == 0
    await other.close()


def effects_beside(
    alice: str, bob: Author, number: int, guild: str, channel: str, code: str
) -> list[Callable[[], StorageEffect[object]]]:
    """What Bob, Alice and an operator do at the same time."""
    user_id, mentions = bob.user_id, Mentions((bob.user_id,), (), everyone=False)
    return [
        lambda: append(channel, user_id, author=bob),
        lambda: append(channel, user_id, author=bob),
        lambda: replace(append(channel, alice, author=Author(alice)), mentions=mentions),
        lambda: replace(append(channel, alice, author=Author(alice)), mentions=mentions),
        lambda: MarkRead(author=bob, channel_id=channel, sequence=None, now_ms=NOW),
        lambda: AcceptInvite(author=bob, code=code, role="member", now_ms=NOW),
        lambda: invite(guild, user_id),
        lambda: login(user_id, next(_logins), "laptop"),
        lambda: RotateRefresh(
            refresh_hash=token(number), new_refresh_hash=token(next(_logins)), new_session_id=new_id(), now_ms=NOW,
            grace_ms=0, access_expires_ms=NOW + DAY, refresh_expires_ms=NOW + DAY,
        ),
        lambda: GrantGuildRole(guild_id=guild, user_id=user_id, role="member", now_ms=NOW),
        lambda: GrantChannelRole(channel_id=channel, user_id=user_id, role="viewer", now_ms=NOW),
        lambda: GrantServerRole(user_id=user_id, role="viewer", now_ms=NOW),
        lambda: RevokeServerRole(user_id=user_id, role="viewer", now_ms=NOW),
        lambda: RemoveMember(author=Author(alice), guild_id=guild, user_id=user_id, now_ms=NOW),
        lambda: BanUser(author=Author(alice), guild_id=guild, user_id=user_id, now_ms=NOW),
    ]  # fmt: skip

"""Logins and changes of a password in PostgreSQL while another change of it is being stored (PROTOCOL 4.8.3, 4.8.5)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import count

import anyio
import asyncpg
import pytest

from openguild_proto.effects.accounts import FindUser, ListDevices, OpenSession, SetPassword
from openguild_proto.effects.base import StorageEffect
from openguild_proto.records import Author
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.postgres import PostgresStorage
from tests.support.deeds import NOW, add_user, login
from tests.support.passwords import change_password
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

WAITING = "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
_logins = count(1)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Storage]:
    """With so many connections that transactions do run at once."""
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks, pool_size=16)
        await store.start()
        yield store
        await store.aclose()


async def phone_of(store: Storage) -> OpenSession:
    phone = login(await add_user(store), next(_logins))
    assert await store.perform(phone) is True
    return phone


@pytest.mark.parametrize(
    "verified",
    [
        lambda phone: login(phone.user_id, next(_logins), "thief"),
        lambda phone: change_password(Author(phone.user_id, phone.session_id), NOW + 1),
    ],
    ids=["login", "change"],
)
async def test_what_was_verified_waits_for_a_change_and_is_refused_after_it(
    store: Storage, database_url: str, verified: Callable[[OpenSession], StorageEffect[bool]]
) -> None:
    phone = await phone_of(store)
    holder, looker = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    outcomes: list[bool] = []

    async def act() -> None:
        outcomes.append(await store.perform(verified(phone)))

    async def is_waiting() -> bool:
        return bool(outcomes) or bool(await looker.fetchval(WAITING))

    async with anyio.create_task_group() as both, holder.transaction():
        await holder.execute("UPDATE users SET password_hash = 'another' WHERE user_id = $1", phone.user_id)
        both.start_soon(act)
        await eventually(is_waiting, what="the other transaction waits")
        assert outcomes == []
    assert outcomes == [False]
    user = await store.perform(FindUser(user_id=phone.user_id))
    assert user is not None
    assert user.password_hash == "another"
    devices = await store.perform(ListDevices(user_id=phone.user_id, now_ms=NOW + 1))
    assert [line.device_id for line in devices] == ["phone"]
    await holder.close()
    await looker.close()


async def test_no_session_of_the_old_password_outlives_changes_and_logins_at_once(store: Storage) -> None:
    for turn in range(20):
        phone = await phone_of(store)
        user_id = phone.user_id
        author = Author(user_id, phone.session_id)
        logins = [login(user_id, next(_logins), f"d{number}") for number in range(6)]
        outcomes: dict[str, bool] = {}

        async def change(name: str, author: Author = author, outcomes: dict[str, bool] = outcomes) -> None:
            outcomes[name] = await store.perform(change_password(author, NOW + 1, name))

        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(store.perform, logins[2 * number])
                tasks.start_soon(change, f"hash {number}")
                tasks.start_soon(store.perform, logins[2 * number + 1])
        (won,) = [name for name, done in outcomes.items() if done]
        user = await store.perform(FindUser(user_id=user_id))
        assert user is not None
        assert user.password_hash == won, turn
        devices = await store.perform(ListDevices(user_id=user_id, now_ms=NOW + 2))
        assert [line.device_id for line in devices] == ["phone"], turn


async def test_an_operators_password_ends_logins_at_the_same_time(store: Storage) -> None:
    for turn in range(20):
        user_id = (await phone_of(store)).user_id
        logins = [login(user_id, next(_logins), f"d{number}") for number in range(6)]
        setting = SetPassword(user_id=user_id, password_hash="new", now_ms=NOW + 1)
        async with anyio.create_task_group() as tasks:
            for effect in (*logins[:3], setting, *logins[3:]):
                tasks.start_soon(store.perform, effect)
        assert await store.perform(ListDevices(user_id=user_id, now_ms=NOW + 2)) == (), turn

"""Changes of passwords on both stores: what they compare, and which sessions they end (PROTOCOL 4.8)."""

from __future__ import annotations

import json
from itertools import count

import anyio
import pytest
from msgspec.structs import replace

from openguild_proto.effects.accounts import (
    ChangePassword,
    FindSession,
    FindUser,
    ListDevices,
    OpenSession,
    RotateRefresh,
    SetPassword,
)
from openguild_proto.effects.logs import ReadLogs
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.records import Author, ControlKind, LogPart
from openguild_runtime.storage.base import Storage
from tests.support.deeds import DAY, NOW, add_guild, add_user, login, new_id, token
from tests.support.passwords import PASSWORD_HASH, change_password
from tests.support.peers import join
from tests.support.storage_handler import HeardFromStorage

pytestmark = pytest.mark.anyio

LATER = NOW + 1_000
_logins = count(5_000)


def change(opened: OpenSession, password_hash: str = "new", checked_hash: str = PASSWORD_HASH) -> ChangePassword:
    return change_password(Author(opened.user_id, opened.session_id), LATER, password_hash, checked_hash)


def set_to(user_id: str, password_hash: str = "new") -> SetPassword:
    return SetPassword(user_id=user_id, password_hash=password_hash, now_ms=LATER)


async def logged_in(storage: Storage, user_id: str, *devices: str) -> list[OpenSession]:
    opened = [login(user_id, next(_logins), device) for device in devices]
    for effect in opened:
        assert await storage.perform(effect) is True
    return opened


async def hash_of(storage: Storage, user_id: str) -> str | None:
    user = await storage.perform(FindUser(user_id=user_id))
    return user.password_hash if user is not None else None


async def devices_of(storage: Storage, user_id: str) -> set[str]:
    return {line.device_id for line in await storage.perform(ListDevices(user_id=user_id, now_ms=LATER))}


async def is_revoked(storage: Storage, opened: OpenSession) -> bool:
    found = await storage.perform(FindSession(session_id=opened.session_id))
    assert found is not None
    return found.revoked


async def test_a_user_is_found_by_id(storage: Storage) -> None:
    alice = await add_user(storage, "Alice")
    found = await storage.perform(FindUser(user_id=alice))
    assert found is not None
    assert (found.user_id, found.username, found.password_hash) == (alice, "Alice", PASSWORD_HASH)
    assert await storage.perform(FindUser(user_id=new_id())) is None


async def test_a_change_ends_all_other_sessions_and_replicas_hear_of_it(storage: Storage) -> None:
    alice, bob = await add_user(storage), await add_user(storage)
    phone, laptop, tablet = await logged_in(storage, alice, "phone", "laptop", "tablet")
    (bystander,) = await logged_in(storage, bob, "phone")
    storage.attach(heard := HeardFromStorage())
    assert await storage.perform(change(phone)) is True
    found = await storage.perform(FindUser(user_id=alice))
    assert found is not None
    assert (found.password_hash, found.updated_at_ms) == ("new", LATER)
    assert await devices_of(storage, alice) == {"phone"}
    assert [await is_revoked(storage, each) for each in (phone, laptop, tablet, bystander)] == [
        False, True, True, False,
    ]  # fmt: skip
    (record,) = heard.records
    assert (record.kind, record.user_id) == (ControlKind.SESSIONS_REVOKED, alice)
    assert set(record.session_ids) == {laptop.session_id, tablet.session_id}
    assert await hash_of(storage, bob) == PASSWORD_HASH


async def test_a_change_keeps_every_session_of_the_callers_family(storage: Storage) -> None:
    alice = await add_user(storage)
    number = next(_logins)
    phone = login(alice, number)
    await storage.perform(phone)
    renewed = new_id()
    await storage.perform(
        RotateRefresh(
            refresh_hash=token(number), new_refresh_hash=token(next(_logins)), new_session_id=renewed, now_ms=NOW,
            grace_ms=0, access_expires_ms=NOW + DAY, refresh_expires_ms=NOW + DAY,
        )
    )  # fmt: skip
    assert await storage.perform(replace(change(phone), author=Author(alice, renewed))) is True
    assert not await is_revoked(storage, phone)
    assert not await is_revoked(storage, replace(phone, session_id=renewed))


async def test_the_users_own_log_tells_which_devices_were_logged_out(storage: Storage) -> None:
    alice = await add_user(storage)
    phone, _ = await logged_in(storage, alice, "phone", "laptop")
    await storage.perform(change(phone))
    assert await storage.perform(set_to(alice)) == 1
    events = [json.loads(event.wire) for event in await storage.perform(ReadLogs(parts=(LogPart(alice, 0, 10),)))]
    told = [event for event in events if event["event_type"] == "device.logged_out"]
    assert [(event["content"]["device_id"], event["sender"]) for event in told] == [
        ("laptop", alice), ("phone", "localhost"),
    ]  # fmt: skip


async def test_a_change_against_another_hash_than_the_stored_one_does_nothing(storage: Storage) -> None:
    alice = await add_user(storage)
    phone, _ = await logged_in(storage, alice, "phone", "laptop")
    assert await storage.perform(change(phone, checked_hash="what it was")) is False
    assert await hash_of(storage, alice) == PASSWORD_HASH
    assert await devices_of(storage, alice) == {"phone", "laptop"}


async def test_a_change_by_a_session_that_has_ended_is_refused(storage: Storage) -> None:
    alice = await add_user(storage)
    phone, laptop = await logged_in(storage, alice, "phone", "laptop")
    assert await storage.perform(change(phone)) is True
    with pytest.raises(Refusal) as refused:
        await storage.perform(change(laptop, "another", checked_hash="new"))
    assert refused.value.code is ErrorCode.UNAUTHORIZED
    assert await hash_of(storage, alice) == "new"


async def test_an_operator_ends_all_sessions(storage: Storage) -> None:
    alice = await add_user(storage)
    phone, laptop = await logged_in(storage, alice, "phone", "laptop")
    storage.attach(heard := HeardFromStorage())
    assert await storage.perform(set_to(alice)) == 2
    assert await hash_of(storage, alice) == "new"
    assert await devices_of(storage, alice) == set()
    (record,) = heard.records
    assert set(record.session_ids) == {phone.session_id, laptop.session_id}
    assert await storage.perform(set_to(alice, "newer")) == 0, "without a session, too"
    assert await hash_of(storage, alice) == "newer"


async def test_an_operator_sets_no_password_of_other_servers_or_of_nobody(storage: Storage) -> None:
    owner = await add_user(storage)
    remote = await join(storage, await add_guild(storage, owner), owner)
    assert await storage.perform(set_to(remote)) is None
    assert await hash_of(storage, remote) == ""
    assert await storage.perform(set_to(new_id())) is None


async def test_a_login_verified_before_a_change_opens_no_session_after_it(storage: Storage) -> None:
    """PROTOCOL 4.8.5."""
    alice = await add_user(storage)
    (phone,) = await logged_in(storage, alice, "phone")
    thief = login(alice, next(_logins), "thief")
    assert await storage.perform(change(phone)) is True
    assert await storage.perform(thief) is False
    assert await storage.perform(FindSession(session_id=thief.session_id)) is None
    assert await devices_of(storage, alice) == {"phone"}
    assert await storage.perform(set_to(alice, "newest")) == 1
    assert await storage.perform(login(alice, next(_logins), "thief", checked_hash="new")) is False
    assert await storage.perform(login(alice, next(_logins), "phone", checked_hash="newest")) is True


async def test_of_two_changes_at_once_one_succeeds(storage: Storage) -> None:
    for _ in range(10):
        alice = await add_user(storage)
        phone, laptop = await logged_in(storage, alice, "phone", "laptop")
        outcomes: dict[str, object] = {}

        async def act(name: str, effect: ChangePassword, outcomes: dict[str, object] = outcomes) -> None:
            try:
                outcomes[name] = await storage.perform(effect)
            except Refusal as refusal:
                outcomes[name] = refusal.code

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(act, "phone", change(phone, "of phone"))
            tasks.start_soon(act, "laptop", change(laptop, "of laptop"))
        (won,) = [name for name, outcome in outcomes.items() if outcome is True]
        assert set(outcomes.values()) == {True, ErrorCode.UNAUTHORIZED}
        assert await hash_of(storage, alice) == f"of {won}"
        assert await devices_of(storage, alice) == {won}

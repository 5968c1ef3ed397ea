"""Users, sessions and refresh families on both stores (PROTOCOL 4)."""

from __future__ import annotations

import asyncio

import anyio
import msgspec
import pytest

from openguild_proto.effects.accounts import (
    DescribeUser,
    FindRefreshFamily,
    FindSession,
    FindUserByName,
    FindUsernames,
    InsertUser,
    ListDevices,
    ListSessionAddresses,
    RevokeDevice,
    RevokeRefresh,
    RotateRefresh,
)
from openguild_proto.effects.roles import GrantChannelRole, GrantGuildRole, GrantServerRole, RevokeServerRole
from openguild_proto.limits import MAX_SESSIONS_PER_RECORD
from openguild_proto.memory import accounts as memory_accounts
from openguild_proto.records import Author, ControlKind, ControlRecord, ReusedRefresh, RotatedRefresh
from openguild_proto.schemas.payloads import encode_control
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.postgres import sessions as postgres_sessions
from tests.support.deeds import DAY, NOW, add_channel, add_guild, add_user, control_head, controls, login, new_id, token
from tests.support.storage_handler import HeardFromStorage

pytestmark = pytest.mark.anyio


def rotate(old: int, new: int, now_ms: int = NOW + 60_000, grace_ms: int = 10_000) -> RotateRefresh:
    return RotateRefresh(
        refresh_hash=token(old),
        new_refresh_hash=token(new),
        new_session_id=new_id(),
        now_ms=now_ms,
        grace_ms=grace_ms,
        access_expires_ms=now_ms + 3_600_000,
        refresh_expires_ms=now_ms + 30 * DAY,
    )


async def revoked(storage: Storage, session_id: str) -> bool:
    session = await storage.perform(FindSession(session_id=session_id))
    assert session is not None
    return session.revoked


async def test_many_who_ask_for_sessions_at_once_get_their_own(storage: Storage) -> None:
    """More than there are connections, one of them twice, and one that nobody knows."""
    logins = [login(await add_user(storage), 100 + number) for number in range(20)]
    for opened in logins:
        await storage.perform(opened)
    await storage.perform(RevokeRefresh(refresh_hash=token(103), now_ms=NOW))
    asked = [opened.session_id for opened in (*logins, logins[2])]
    found = await asyncio.gather(*(storage.perform(FindSession(session_id=session)) for session in (*asked, new_id())))
    assert found.pop() is None
    assert [session and session.session_id for session in found] == asked
    assert [session and session.user_id for session in found] == [opened.user_id for opened in (*logins, logins[2])]
    assert [number for number, session in enumerate(found) if session and session.revoked] == [3]


async def test_a_name_is_unique(storage: Storage) -> None:
    user_id = await add_user(storage, "Alice")
    again = InsertUser(user_id=new_id(), username="ALICE", username_key="alice", password_hash="x", now_ms=NOW)
    assert await storage.perform(again) is False
    user = await storage.perform(FindUserByName(username_key="alice"))
    assert user is not None
    assert (user.user_id, user.username, user.created_at_ms) == (user_id, "Alice", NOW)
    assert await storage.perform(FindUserByName(username_key="bob")) is None


async def test_names_are_found_by_id(storage: Storage) -> None:
    alice, bob = await add_user(storage, "Alice"), await add_user(storage, "bob")
    assert await storage.perform(FindUsernames(user_ids=(alice, new_id(), bob))) == {alice: "Alice", bob: "bob"}
    assert await storage.perform(FindUsernames(user_ids=())) == {}


async def test_describe_shows_roles_guilds_and_channels(storage: Storage) -> None:
    user = await add_user(storage)
    guild = await add_guild(storage, user)
    channel = await add_channel(storage, guild, user)
    for role, moment in (("viewer", NOW + 2), ("admin", NOW + 1), ("viewer", NOW)):
        await storage.perform(GrantServerRole(user_id=user, role=role, now_ms=moment))
    profile = await storage.perform(DescribeUser(user_id=user))
    assert profile is not None
    assert profile.server_roles == ("admin", "viewer"), "granted first comes first; a second grant changes nothing"
    assert [(line.guild_id, line.role) for line in profile.guilds] == [(guild, "owner")]
    assert [(line.channel_id, line.role) for line in profile.channels] == [(channel, "moderator")]
    assert await storage.perform(RevokeServerRole(user_id=user, role="admin", now_ms=NOW)) is True
    assert await storage.perform(RevokeServerRole(user_id=user, role="admin", now_ms=NOW)) is False
    assert await storage.perform(DescribeUser(user_id=new_id())) is None


async def test_describe_shows_the_channels_that_come_with_a_guild(storage: Storage) -> None:
    """Guild members have every channel of the guild, whoever made it (PROTOCOL 5.3.3)."""
    owner, user = await add_user(storage), await add_user(storage)
    guild, other = await add_guild(storage, owner), await add_guild(storage, owner)
    old = await add_channel(storage, guild, owner, "old", NOW)
    new = await add_channel(storage, guild, owner, "new", NOW + 20)
    single = await add_channel(storage, other, owner, "single", NOW)
    await add_channel(storage, other, owner, "hidden", NOW)
    await storage.perform(GrantGuildRole(guild_id=guild, user_id=user, role="viewer", now_ms=NOW + 10))
    await storage.perform(GrantChannelRole(channel_id=new, user_id=user, role="maintainer", now_ms=NOW + 30))
    await storage.perform(GrantChannelRole(channel_id=single, user_id=user, role="guest", now_ms=NOW + 40))
    profile = await storage.perform(DescribeUser(user_id=user))
    assert profile is not None
    lines = [(line.channel_id, line.guild_id, line.name, line.role, line.joined_at_ms) for line in profile.channels]
    assert lines == [
        (old, guild, "old", "viewer", NOW + 10),
        (new, guild, "new", "maintainer", NOW + 30),
        (single, other, "single", "guest", NOW + 40),
    ]
    bounded = await storage.perform(DescribeUser(user_id=user, limit=2))
    assert bounded is not None
    assert bounded.channels == profile.channels[:2]
    late = await storage.perform(DescribeUser(user_id=owner))
    assert late is not None
    assert len(late.channels) == 4


async def test_rotation_exchanges_the_token(storage: Storage) -> None:
    """Refreshing works on the real store, and two at once do not both win (PROTOCOL 4.6.2)."""
    user = await add_user(storage)
    await storage.perform(login(user, 1))
    outcomes: list[object] = []

    async def refresh(new: int) -> None:
        outcomes.append(await storage.perform(rotate(1, new, grace_ms=0)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(refresh, 2)
        tasks.start_soon(refresh, 3)
    assert sum(isinstance(outcome, RotatedRefresh) for outcome in outcomes) >= 1
    assert not any(outcome is None for outcome in outcomes)


async def test_a_lost_answer_may_be_asked_again_within_the_grace(storage: Storage) -> None:
    user = await add_user(storage)
    await storage.perform(login(user, 1))
    assert isinstance(await storage.perform(rotate(1, 2, NOW + 1_000)), RotatedRefresh)
    for moment in (NOW + 5_000, NOW + 6_000, NOW + 11_000):
        assert isinstance(await storage.perform(rotate(1, 2, moment)), RotatedRefresh)
    assert isinstance(await storage.perform(rotate(2, 3, NOW + DAY)), RotatedRefresh), "whichever answer was kept"


async def test_asking_again_does_not_make_the_grace_longer(storage: Storage) -> None:
    user = await add_user(storage)
    await storage.perform(login(user, 1))
    for moment in (NOW + 1_000, NOW + 10_000):
        assert isinstance(await storage.perform(rotate(1, 2, moment)), RotatedRefresh)
    assert isinstance(await storage.perform(rotate(1, 2, NOW + 11_001)), ReusedRefresh)
    assert await storage.perform(rotate(2, 3, NOW + 12_000)) is None, "the family has ended"


async def test_many_refreshes_at_once_with_one_token_all_get_its_successor(storage: Storage) -> None:
    user = await add_user(storage)
    await storage.perform(login(user, 1))
    outcomes: list[object] = []

    async def refresh() -> None:
        outcomes.append(await storage.perform(rotate(1, 2)))

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(refresh)
    assert [type(outcome) for outcome in outcomes] == [RotatedRefresh] * 8
    assert isinstance(await storage.perform(rotate(2, 3, NOW + 90_000)), RotatedRefresh)


async def test_whose_token_it_is(storage: Storage) -> None:
    user = await add_user(storage)
    await storage.perform(login(user, 1))
    await storage.perform(rotate(1, 2))

    async def owner(number: int, now_ms: int = NOW + 60_000) -> str | None:
        family = await storage.perform(FindRefreshFamily(refresh_hash=token(number), now_ms=now_ms))
        assert family is None or family.secret == bytes([1]) * 32, "its first token's, for every one of them"
        return family.user_id if family is not None else None

    assert [await owner(1), await owner(2), await owner(3)] == [user, user, None]
    assert await owner(1, NOW + 30 * DAY) is None, "expired"
    await storage.perform(RevokeRefresh(refresh_hash=token(2), now_ms=NOW + 60_000))
    assert await owner(2) is None


async def test_a_record_of_sessions_is_small() -> None:
    """One record of all sessions of a huge family would be larger than NATS carries."""
    sessions = tuple(new_id() for _ in range(MAX_SESSIONS_PER_RECORD))
    record = ControlRecord(sequence=1, kind=ControlKind.SESSIONS_REVOKED, user_id=new_id(), session_ids=sessions)
    assert len(encode_control(record)) < 50_000


async def test_the_end_of_a_huge_family_is_told_in_small_records(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (memory_accounts, postgres_sessions):
        monkeypatch.setattr(module, "MAX_SESSIONS_PER_RECORD", 10)
    user = await add_user(storage)
    first = login(user, 1)
    await storage.perform(first)
    sessions = {first.session_id}
    for number in range(1, 22):
        effect = rotate(number, number + 1)
        assert isinstance(await storage.perform(effect), RotatedRefresh)
        sessions.add(effect.new_session_id)
    before = await control_head(storage)
    await storage.perform(login(user, 9_999, now_ms=NOW + 60_000))
    records = await controls(storage, before, 100)
    assert [record.kind for record in records] == [ControlKind.SESSIONS_REVOKED] * 3
    assert {record.user_id for record in records} == {user}
    assert [len(record.session_ids) for record in records] == [10, 10, 2]
    assert {session_id for record in records for session_id in record.session_ids} == sessions


async def test_reuse_of_a_rotated_token_ends_the_family(storage: Storage) -> None:
    """PROTOCOL 4.6.5."""
    user = await add_user(storage)
    opened = login(user, 1)
    await storage.perform(opened)
    first = rotate(1, 2)
    assert isinstance(await storage.perform(first), RotatedRefresh)
    assert isinstance(await storage.perform(rotate(1, 3, NOW + 120_000)), ReusedRefresh)
    assert await storage.perform(rotate(2, 4, NOW + 121_000)) is None
    assert await revoked(storage, opened.session_id)
    assert await revoked(storage, first.new_session_id)
    record = (await controls(storage, 0, 100))[-1]
    assert record.kind is ControlKind.SESSIONS_REVOKED
    assert set(record.session_ids) == {opened.session_id, first.new_session_id}


async def test_unknown_and_expired_tokens_are_worth_nothing(storage: Storage) -> None:
    user = await add_user(storage)
    await storage.perform(login(user, 1))
    assert await storage.perform(rotate(9, 10)) is None
    assert await storage.perform(rotate(1, 2, NOW + 31 * DAY)) is None
    assert await storage.perform(RevokeRefresh(refresh_hash=token(9), now_ms=NOW)) is False


async def test_a_new_login_on_a_device_ends_the_former_one(storage: Storage) -> None:
    user = await add_user(storage)
    first, second, laptop = login(user, 1), login(user, 2), login(user, 3, "laptop")
    for effect in (first, laptop, second):
        await storage.perform(effect)
    assert await revoked(storage, first.session_id)
    assert not await revoked(storage, second.session_id)
    assert not await revoked(storage, laptop.session_id)
    devices = await storage.perform(ListDevices(user_id=user, now_ms=NOW))
    assert [device.device_id for device in devices] == ["laptop", "phone"]


async def test_of_too_many_devices_the_ones_seen_longest_ago_are_signed_out(storage: Storage) -> None:
    """And every replica hears which sessions have ended."""
    user, other = await add_user(storage), await add_user(storage)
    logins = [login(user, number, f"d{number}", NOW + number) for number in range(1, 6)]
    bystander = login(other, 50)
    for effect in (*logins, bystander):
        await storage.perform(effect)
    assert isinstance(await storage.perform(rotate(1, 60)), RotatedRefresh)  # d1 is seen again
    storage.attach(heard := HeardFromStorage())
    last = msgspec.structs.replace(login(user, 6, "d6", NOW + 70_000), limit=3)
    await storage.perform(last)
    devices = await storage.perform(ListDevices(user_id=user, now_ms=NOW + 70_000))
    assert [device.device_id for device in devices] == ["d6", "d1", "d5"]
    assert {session_id for record in heard.records for session_id in record.session_ids} == {
        effect.session_id for effect in logins[1:4]
    }
    again = msgspec.structs.replace(login(user, 7, "d5", NOW + 80_000), limit=3)
    await storage.perform(again)
    devices = await storage.perform(ListDevices(user_id=user, now_ms=NOW + 80_000))
    assert [device.device_id for device in devices] == ["d5", "d6", "d1"], "a device that is known costs no other"
    assert not await revoked(storage, bystander.session_id)
    two = await storage.perform(ListDevices(user_id=user, now_ms=NOW + 80_000, limit=2))
    assert [device.device_id for device in two] == ["d5", "d6"]


async def test_logins_of_many_devices_at_once_stay_within_the_limit(storage: Storage) -> None:
    user = await add_user(storage)
    async with anyio.create_task_group() as tasks:
        for number in range(1, 9):
            effect = msgspec.structs.replace(login(user, number, f"d{number}"), limit=3)
            tasks.start_soon(storage.perform, effect)
    assert len(await storage.perform(ListDevices(user_id=user, now_ms=NOW))) == 3


async def test_where_a_user_is_signed_in(storage: Storage) -> None:
    user = await add_user(storage)
    addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.1", None, "2001:db8::1"]
    for number, address in enumerate(addresses, start=1):
        effect = login(user, number, f"d{number}", NOW + number)
        await storage.perform(msgspec.structs.replace(effect, ip_address=address))

    async def found(limit: int = 100, now_ms: int = NOW + 10) -> tuple[str, ...]:
        return await storage.perform(ListSessionAddresses(user_id=user, now_ms=now_ms, limit=limit))

    assert await found() == ("2001:db8::1", "192.0.2.1", "192.0.2.2")
    assert await found(limit=2) == ("2001:db8::1", "192.0.2.1")
    await storage.perform(RevokeDevice(author=Author(user), device_id="d5", now_ms=NOW + 10))
    assert await found() == ("192.0.2.1", "192.0.2.2")
    assert await found(now_ms=NOW + 31 * DAY) == ()


async def test_logins_on_one_device_at_once_leave_one_living(storage: Storage) -> None:
    user = await add_user(storage)
    logins = [login(user, number) for number in range(1, 9)]
    async with anyio.create_task_group() as tasks:
        for effect in logins:
            tasks.start_soon(storage.perform, effect)
    assert [await revoked(storage, effect.session_id) for effect in logins].count(False) == 1


async def test_revoking_by_token_and_by_device(storage: Storage) -> None:
    """Every replica hears which sessions have ended (PROTOCOL 4.7.3)."""
    user = await add_user(storage)
    phone, laptop = login(user, 1), login(user, 2, "laptop")
    await storage.perform(phone)
    await storage.perform(laptop)
    storage.attach(heard := HeardFromStorage())
    assert await storage.perform(RevokeRefresh(refresh_hash=token(1), now_ms=NOW + 1)) is True
    assert await storage.perform(RevokeRefresh(refresh_hash=token(1), now_ms=NOW + 1)) is False
    assert await storage.perform(RevokeDevice(author=Author(user), device_id="laptop", now_ms=NOW + 1)) is True
    assert await storage.perform(RevokeDevice(author=Author(user), device_id="laptop", now_ms=NOW + 1)) is False
    assert [record.session_ids for record in heard.records] == [(phone.session_id,), (laptop.session_id,)]
    assert await storage.perform(ListDevices(user_id=user, now_ms=NOW + 1)) == ()


async def test_sessions_of_others_cannot_be_ended(storage: Storage) -> None:
    alice, eve = await add_user(storage), await add_user(storage)
    await storage.perform(login(alice, 1))
    assert await storage.perform(RevokeDevice(author=Author(eve), device_id="phone", now_ms=NOW)) is False


async def test_what_has_expired_is_pruned_at_the_next_login(storage: Storage) -> None:
    """PROTOCOL 11.6.3."""
    user = await add_user(storage)
    old = login(user, 1, "old")
    await storage.perform(old)
    await storage.perform(login(user, 2, "new", now_ms=NOW + 31 * DAY))
    assert await storage.perform(FindSession(session_id=old.session_id)) is None

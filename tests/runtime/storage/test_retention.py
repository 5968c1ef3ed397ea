"""What has expired goes without anybody logging in, a little at a time (PROTOCOL 11.6.3)."""

from __future__ import annotations

import time
import uuid

import msgspec
import pytest

from openguild_proto.effects.accounts import FindSession, ListDevices
from openguild_proto.effects.attempts import AttemptKey, CountAttempt
from openguild_proto.effects.retention import PruneExpired
from openguild_runtime.server.retention import prune
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from tests.support.deeds import DAY, NOW, add_channel, add_guild, add_user, append, control_head, controls, heads, login

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

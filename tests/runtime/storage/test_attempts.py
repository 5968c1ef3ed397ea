"""Attempts counted for all replicas, on every store (PROTOCOL 9.4.5), and blocks of operators (9.4.6)."""

from __future__ import annotations

import anyio
import pytest

from openguild_proto.effects.attempts import (
    AttemptKey,
    BlockLogins,
    CountAttempt,
    ListLoginBlocks,
    LoginBlock,
    UnblockLogins,
)
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW

pytestmark = pytest.mark.anyio

ADDRESS = AttemptKey(b"a" * 32, 5)
ACCOUNT = AttemptKey(b"b" * 32, 3)


async def attempt(storage: Storage, secs: float, *keys: AttemptKey) -> float | None:
    return await storage.perform(CountAttempt(keys=keys, window_secs=60, now_ms=NOW + int(secs * 1000)))


async def test_a_window_never_holds_more_than_the_limit(storage: Storage) -> None:
    admitted = [second for second in range(200) if await attempt(storage, second, ADDRESS) is None]
    for start in range(200):
        assert sum(start <= second < start + 60 for second in admitted) <= 5
    assert len(admitted) == 20, "and hardly less: five for each 61 seconds"


async def test_the_wait_that_is_told_is_enough(storage: Storage) -> None:
    for second in (0.5, 20, 40):
        assert await attempt(storage, second, ACCOUNT) is None
    wait = await attempt(storage, 45, ACCOUNT)
    assert wait is not None
    assert 15 < wait <= 16.5
    assert await attempt(storage, 45 + wait - 0.1, ACCOUNT) is not None
    assert await attempt(storage, 45 + wait, ACCOUNT) is None


async def test_what_one_key_refuses_costs_the_other_nothing(storage: Storage) -> None:
    for _ in range(3):
        assert await attempt(storage, 0, ACCOUNT) is None
    for _ in range(10):
        assert await attempt(storage, 1, ADDRESS, ACCOUNT) is not None
    for _ in range(5):
        assert await attempt(storage, 2, ADDRESS) is None
    assert await attempt(storage, 2, ADDRESS) is not None


async def test_attempts_at_once_are_counted_one_by_one(storage: Storage) -> None:
    outcomes: list[float | None] = []

    async def try_once(number: int) -> None:
        keys = (ADDRESS, ACCOUNT) if number % 2 else (ACCOUNT, ADDRESS)
        outcomes.append(await attempt(storage, 0, *keys))

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(try_once, number)
    assert outcomes.count(None) == 3


async def test_a_million_keys_would_not_stay(storage: Storage) -> None:
    """What has left its window is cleared away by later attempts, a little each time."""
    for number in range(100):
        assert await attempt(storage, 0, AttemptKey(number.to_bytes(32), 1)) is None
    for number in range(100, 150):
        assert await attempt(storage, 200, AttemptKey(number.to_bytes(32), 1)) is None
    assert await attempt(storage, 200, AttemptKey((0).to_bytes(32), 1)) is None


async def test_a_block_admits_nothing_until_it_ends(storage: Storage) -> None:
    block = LoginBlock("address", "192.0.2.1", NOW + 30_000, ADDRESS.digest)
    assert await storage.perform(BlockLogins(block=block, most=10, now_ms=NOW))
    assert await attempt(storage, 10, ACCOUNT, ADDRESS) == 20
    assert await attempt(storage, 10, ACCOUNT) is None, "the refusal cost the other key nothing"
    assert await storage.perform(ListLoginBlocks(now_ms=NOW + 29_999)) == [block]
    assert await storage.perform(ListLoginBlocks(now_ms=NOW + 30_000)) == []
    assert await attempt(storage, 30, ADDRESS) is None


async def test_a_block_ends_sooner_or_later_as_the_operator_says(storage: Storage) -> None:
    def block(secs: int) -> BlockLogins:
        return BlockLogins(block=LoginBlock("account", "bob", NOW + secs * 1_000, ACCOUNT.digest), most=10, now_ms=NOW)

    assert await storage.perform(block(30))
    assert await storage.perform(block(90))
    assert await attempt(storage, 60, ACCOUNT) == 30
    unblock = UnblockLogins(digest=ACCOUNT.digest, now_ms=NOW)
    assert await storage.perform(unblock)
    assert not await storage.perform(unblock)
    assert await attempt(storage, 60, ACCOUNT) is None


async def test_blocks_are_bounded_and_ended_ones_make_room(storage: Storage) -> None:
    async def block(number: int, now_ms: int = NOW) -> bool:
        wanted = LoginBlock("address", f"192.0.2.{number}", now_ms + (number + 1) * 1_000, number.to_bytes(32))
        return await storage.perform(BlockLogins(block=wanted, most=3, now_ms=now_ms))

    assert [await block(number) for number in range(4)] == [True, True, True, False]
    assert await block(1), "a repeat takes no room"
    assert await block(7, NOW + 1_000), "the first has ended"
    assert [each.name for each in await storage.perform(ListLoginBlocks(now_ms=NOW + 1_000))] == [
        "192.0.2.1", "192.0.2.2", "192.0.2.7",
    ]  # fmt: skip

"""Leases: which process delivers to a peer (PROTOCOL 16.8.12). One suite for every store."""

from __future__ import annotations

import anyio
import pytest

from openguild_proto.effects.deliveries import Leases, LeaveLeases, TakeLeases
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, new_id

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


async def test_one_holder_of_a_lease_at_a_time(storage: Storage) -> None:
    peers = tuple(sorted(f"{new_id()}.test" for _ in range(3)))
    one, two = new_id(), new_id()

    async def take(holder: str, wanted: tuple[str, ...], now_ms: int) -> tuple[str, ...]:
        leases = await storage.perform(TakeLeases(peers=wanted, holder=holder, now_ms=now_ms, until_ms=now_ms + 15_000))
        return leases.peers

    assert await take(one, peers[:2], NOW) == peers[:2]
    assert await take(two, peers, NOW + 10_000) == peers[2:]
    assert await take(one, peers[:2], NOW + 10_000) == peers[:2], "renewed"
    assert await take(two, peers, NOW + 20_000) == peers[2:]
    assert await take(two, peers[1:], NOW + 25_001) == peers[1:], "it has run out"
    assert await take(one, peers, NOW + 25_002) == peers[:1]
    await storage.perform(LeaveLeases(holder=two))
    assert await take(one, peers, NOW + 25_003) == peers
    assert await take(one, (), NOW + 25_003) == ()


async def test_leases_from_before_the_clock_was_set_back_hold_nothing_up(storage: Storage) -> None:
    """At a time of its own, as below."""
    ahead_ms, now_ms = 4 * NOW, 4 * NOW - 3_600_000
    peers = tuple(sorted(f"{new_id()}.test" for _ in range(4)))

    async def take(holder: str, at_ms: int) -> Leases:
        return await storage.perform(TakeLeases((), holder, at_ms, at_ms + 15_000, others=peers, at_most=4))

    killed, fresh = new_id(), new_id()
    assert (await take(killed, ahead_ms)).peers == peers
    assert await take(fresh, now_ms) == Leases(peers, 1)
    assert (await take(fresh, now_ms + 1)).holders == 1
    assert await take(killed, now_ms + 2) == Leases((), 2), "it lives, and its own row is renewed"
    assert (await take(fresh, now_ms + 3)).holders == 2


async def test_many_that_take_leases_at_once_share_them(storage: Storage) -> None:
    peers = tuple(f"{new_id()}.test" for _ in range(20))
    taken: dict[str, tuple[str, ...]] = {}

    async def take(holder: str) -> None:
        leases = await storage.perform(TakeLeases(peers=peers, holder=holder, now_ms=NOW, until_ms=NOW + 1))
        taken[holder] = leases.peers

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(take, new_id())
    assert sorted(peer for each in taken.values() for peer in each) == sorted(peers)


async def test_processes_know_how_many_they_are(storage: Storage) -> None:
    """At a time of their own: others of the suite take part at NOW."""
    at_ms = 2 * NOW
    one, two = new_id(), new_id()
    peers = tuple(f"{new_id()}.test" for _ in range(5))

    async def take(holder: str, mine: tuple[str, ...] = (), at_most: int = 0, now_ms: int = at_ms) -> Leases:
        others = tuple(peer for peer in peers if peer not in mine)
        return await storage.perform(TakeLeases(mine, holder, now_ms, now_ms + 15_000, others=others, at_most=at_most))

    first = await take(one, at_most=4)
    assert (len(first.peers), first.holders) == (4, 1)
    second = await take(two, at_most=4)
    assert (len(second.peers), second.holders) == (1, 2)
    assert {*first.peers, *second.peers} == {*peers}
    await storage.perform(LeaveLeases(holder=one, peers=first.peers[:2]))
    third = await take(two, second.peers, at_most=4)
    assert {*third.peers} == {*second.peers, *first.peers[:2]}
    assert (await take(one, first.peers[2:])).peers == tuple(sorted(first.peers[2:]))
    await storage.perform(LeaveLeases(holder=two))
    assert await take(one) == Leases((), 1)
    assert (await take(two, now_ms=at_ms + 15_001)).holders == 1, "the other one has ended"

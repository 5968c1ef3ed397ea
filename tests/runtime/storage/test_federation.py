"""Other servers, nonces and own keys, on every store."""

from __future__ import annotations

import anyio
import pytest

from openguild_proto.effects.federation import (
    FindPeer,
    ListFederatedGuilds,
    ListOwnKeys,
    ListPeers,
    NoteContact,
    OwnKey,
    Peer,
    PublishedKey,
    RecordOwnKey,
    RememberNonce,
    RevokeOwnKey,
    RuleServer,
    Ruling,
    Standing,
    StorePeer,
)
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW

pytestmark = pytest.mark.anyio

ONE = PublishedKey("one", b"1" * 32, NOW - 10, NOW + 10)
TWO = PublishedKey("two", b"2" * 32, NOW, NOW + 20)


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


def stored(server: str, *keys: PublishedKey, checked_ms: int = NOW) -> StorePeer:
    return StorePeer(server=server, base_url=f"https://{server}", keys=keys, checked_ms=checked_ms)


async def found(storage: Storage, server: str) -> Peer | None:
    return await storage.perform(FindPeer(server=server))


async def test_a_peer_keeps_every_key_it_ever_had(storage: Storage) -> None:
    assert await found(storage, "a.example") is None
    await storage.perform(stored("a.example", ONE))
    await storage.perform(stored("a.example", TWO, checked_ms=NOW + 1))
    assert await found(storage, "a.example") == Peer("a.example", "https://a.example", (TWO, ONE), NOW + 1)
    longer = PublishedKey("one", ONE.public_key, NOW - 5, NOW + 30, revoked_at=NOW + 3)
    await storage.perform(stored("a.example", longer))
    other = PublishedKey("two", b"x" * 32, 0, NOW * 2)
    await storage.perform(stored("a.example", other, ONE))
    peer = await found(storage, "a.example")
    assert peer is not None
    assert peer.keys == (TWO, PublishedKey("one", ONE.public_key, NOW - 10, NOW + 30, NOW + 3))


async def test_contact_moves_only_forward(storage: Storage) -> None:
    for at_ms in (NOW, NOW + 5, NOW + 2):
        await storage.perform(NoteContact(server="b.example", contacted_ms=at_ms))
    assert await found(storage, "b.example") == Peer("b.example", contacted_ms=NOW + 5)
    await storage.perform(stored("b.example", ONE))
    peer = await found(storage, "b.example")
    assert peer is not None
    assert peer.contacted_ms == NOW + 5


async def remember(storage: Storage, server: str, nonce: str, at_ms: int = NOW, secs: int = 660) -> bool:
    return await storage.perform(RememberNonce(server=server, nonce=nonce, now_ms=at_ms, until_ms=at_ms + secs * 1_000))


async def test_a_nonce_is_used_once(storage: Storage) -> None:
    assert await remember(storage, "c.example", "n")
    assert not await remember(storage, "c.example", "n")
    assert await remember(storage, "d.example", "n")
    assert await remember(storage, "c.example", "N")


async def test_of_many_at_once_one_uses_a_nonce(storage: Storage) -> None:
    outcomes: list[bool] = []

    async def try_once() -> None:
        outcomes.append(await remember(storage, "e.example", "n"))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(try_once)
    assert sorted(outcomes) == [False] * 19 + [True]


async def test_old_nonces_are_forgotten_by_later_ones(storage: Storage) -> None:
    for number in range(8):
        await remember(storage, "f.example", f"old {number}")
    later = NOW + 700_000
    for number in range(20):
        await remember(storage, "f.example", f"new {number}", at_ms=later)
    assert [await remember(storage, "f.example", f"old {number}", at_ms=later) for number in range(8)] == [True] * 8


async def record(storage: Storage, key_id: str, public_key: bytes, at_ms: int) -> OwnKey:
    return await storage.perform(
        RecordOwnKey(key_id=key_id, public_key=public_key, now_ms=at_ms, not_after=at_ms + 100)
    )


async def test_own_keys_live_while_they_are_used(storage: Storage) -> None:
    assert await record(storage, "1", b"1" * 32, NOW) is OwnKey.IN_USE
    assert await record(storage, "2", b"2" * 32, NOW + 10) is OwnKey.IN_USE
    assert await record(storage, "1", b"1" * 32, NOW + 20) is OwnKey.IN_USE
    assert await record(storage, "1", b"1" * 32, NOW + 5) is OwnKey.IN_USE
    assert await record(storage, "1", b"x" * 32, NOW + 900) is OwnKey.REFUSED, "an id is for one key"
    assert [key for key in await storage.perform(ListOwnKeys()) if key.key_id in {"1", "2"}] == [
        PublishedKey("2", b"2" * 32, NOW + 10, NOW + 110),
        PublishedKey("1", b"1" * 32, NOW, NOW + 120),
    ]


async def test_decisions_of_the_operator(storage: Storage) -> None:
    async def rule(standing: Standing | None, guild_id: str | None = None, reason: str = "") -> tuple[Ruling, ...]:
        effect = RuleServer(server="g.example", guild_id=guild_id, standing=standing, reason=reason, now_ms=NOW)
        await storage.perform(effect)
        peer = await found(storage, "g.example")
        return peer.rulings if peer is not None else ()

    deny, quarantine = Ruling(Standing.DENY, "spam", "guild"), Ruling(Standing.QUARANTINE)
    assert await rule(None) == ()
    assert await rule(Standing.DENY, "guild", "spam") == (deny,)
    assert await rule(Standing.ALLOW) == (Ruling(Standing.ALLOW), deny)
    assert await rule(Standing.QUARANTINE) == (quarantine, deny)
    await storage.perform(stored("g.example", ONE))
    assert await rule(None, "guild") == (quarantine,)
    assert await rule(None) == ()
    assert await found(storage, "g.example") == Peer("g.example", "https://g.example", (ONE,), NOW)


async def test_peers_are_listed_by_name(storage: Storage) -> None:
    for server in ("z.example", "Z.example", "y-1.example", "y.example"):
        await storage.perform(NoteContact(server=server, contacted_ms=NOW))

    async def names(after: str, limit: int) -> list[str]:
        return [peer.server for peer in await storage.perform(ListPeers(after=after, limit=limit))]

    assert await names("y", 10) == ["y-1.example", "y.example", "z.example"]
    assert await names("y-1.example", 1) == ["y.example"]


async def test_a_revoked_key_of_ones_own_is_not_used_again(storage: Storage) -> None:
    assert await record(storage, "r", b"r" * 32, NOW) is OwnKey.IN_USE
    revoke = RevokeOwnKey(key_id="r", revoked_at=NOW + 1)
    assert [await storage.perform(revoke) for _ in range(2)] == [True, False]
    assert await record(storage, "r", b"r" * 32, NOW + 2) is OwnKey.REFUSED
    assert not await storage.perform(RevokeOwnKey(key_id="unknown", revoked_at=NOW))
    (key,) = [key for key in await storage.perform(ListOwnKeys()) if key.key_id == "r"]
    assert key == PublishedKey("r", b"r" * 32, NOW, NOW + 100, NOW + 1)


async def test_a_server_has_so_many_keys_and_no_more(storage: Storage) -> None:
    """Others refuse a document with more; the keys that are there go on."""

    async def use(key_id: str, at_most: int) -> OwnKey:
        effect = RecordOwnKey(
            key_id=key_id, public_key=key_id.encode() * 32, now_ms=NOW, not_after=NOW + 1, at_most=at_most
        )
        return await storage.perform(effect)

    await use("m", 1_000)
    number = len(await storage.perform(ListOwnKeys()))
    assert await use("n", number) is OwnKey.TOO_MANY
    assert await use("m", number) is OwnKey.IN_USE
    assert await use("n", number + 1) is OwnKey.IN_USE
    assert await use("m", number + 1) is OwnKey.IN_USE


async def test_no_guild_is_federated_yet(storage: Storage) -> None:
    assert await storage.perform(ListFederatedGuilds(limit=10)) == ()

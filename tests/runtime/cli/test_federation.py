"""`openguild-server federation verify` finds what its receipts do not stand for (PROTOCOL 16.9)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import asyncpg
import pytest
from msgspec.structs import replace

from openguild_proto.canonical.keys import EventSigner, encode_unpadded
from openguild_proto.canonical.receipts import first_link, sign_receipt
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects import StorageEffect
from openguild_proto.effects.deliveries import ChainPoint, MoveChains
from openguild_proto.effects.logs import FindLogHead
from openguild_proto.effects.mirrors import MirrorEvents, StoreMirror
from openguild_proto.log.chains import begun_chains_at
from openguild_proto.records import LogPosition
from openguild_runtime.cli.federation import verify_receipts
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.postgres import PostgresStorage
from tests.runtime.storage.test_mirrors import register
from tests.support.deeds import add_channel, add_guild, add_user, append
from tests.support.owner_server import NOW_MS, Owner
from tests.support.owner_server import OWNER as MIRRORED

pytestmark = pytest.mark.anyio
OWNER = EventSigner("owner.test", "1", SigningKey(bytes(32)))


@pytest.fixture
async def storage(database_url: str) -> AsyncIterator[Storage]:
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks, pool_size=4)
        await store.start()
        yield store
        await store.aclose()


async def value_at(storage: Storage, log_id: str, sequence: int) -> bytes:
    operation = begun_chains_at([LogPosition(log_id, 1, sequence)])
    result = None
    while True:
        try:
            effect = operation.send(result)
        except StopIteration as end:
            return bytes(end.value[LogPosition(log_id, 1, sequence)])
        assert isinstance(effect, StorageEffect)
        result = await storage.perform(effect)


async def test_own_chains_and_receipts_of_others(storage: Storage, database_url: str) -> None:
    owner = await add_user(storage)
    guild = await add_guild(storage, owner)
    channel = await add_channel(storage, guild, owner)
    await value_at(storage, channel, 0)
    for _ in range(300):
        await storage.perform(append(channel))
    tip = ChainPoint(LogPosition(channel, 1, 300), await value_at(storage, channel, 300))
    await storage.perform(MoveChains(tips=(tip,), checkpoints=()))
    place = await storage.perform(FindLogHead(log_id=guild))
    assert place is not None
    chain = bytes(32)
    receipt = sign_receipt(OWNER, chain, guild, place.epoch, place.sequence)
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("UPDATE guilds SET origin = 'owner.test'")
        await connection.execute("INSERT INTO federation_peers (server) VALUES ('owner.test')")
        await connection.execute(
            "INSERT INTO federation_peer_keys VALUES ('owner.test', '1', $1, now(), now())", OWNER.public
        )
        await connection.execute(
            "INSERT INTO federation_mirrors (log_id, guild_id, hash, receipt) VALUES ($1, $1, $2, $3)",
            guild,
            chain,
            receipt,
        )
        await connection.execute("INSERT INTO federation_mirrors (log_id, guild_id) VALUES ($1, $2)", channel, guild)
        found = await verify_receipts(database_url)
        assert (found.chains, found.events, found.receipts, found.without, found.problems) == (1, 300, 1, 1, [])
        await connection.execute("UPDATE federation_mirrors SET hash = $2 WHERE log_id = $1", guild, bytes(31) + b"x")
        await connection.execute(
            "UPDATE log_events SET event_id = $2 WHERE log_id = $1 AND sequence = 280", channel, "$x"
        )
        found = await verify_receipts(database_url)
        assert len(found.problems) == 2
        assert channel in found.problems[0]
        assert guild in found.problems[1]
    finally:
        await connection.close()


async def test_a_mirror_is_checked_from_where_it_began(storage: Storage, database_url: str) -> None:
    owner = Owner()
    bob = await register(storage, "bob")
    joined, begin = owner.join(bob), first_link(owner.channel_id, 1, 0)
    assert joined.snapshot is not None
    channels = [replace(line, chain=encode_unpadded(begin)) for line in joined.snapshot.channels]
    await storage.perform(
        StoreMirror(MIRRORED, owner.guild_id, replace(joined.snapshot, channels=channels), NOW_MS, joined=joined.member)
    )
    for number in range(5):
        owner.post(f"message {number}")
    news = owner.news(owner.channel_id, 0)
    outcome = await storage.perform(MirrorEvents(MIRRORED, owner.guild_id, owner.channel_id, 1, news))
    assert outcome.status == "ok"
    assert (await verify_receipts(database_url))[3:] == (2, [], 5)
    connection = await asyncpg.connect(database_url)
    swap = "UPDATE log_events SET event_id = $2 WHERE log_id = $1 AND sequence = 2"
    for change in (swap, "DELETE FROM log_events WHERE log_id = $1 AND sequence > 3 AND $2 <> ''"):
        await connection.execute(change, owner.channel_id, "$x")
        (problem,) = (await verify_receipts(database_url)).problems
        assert problem.startswith(f"log {owner.channel_id} of {MIRRORED}: its events up to sequence 5 are not those")
        await connection.execute(swap, owner.channel_id, news[1].event_id)
    await connection.close()

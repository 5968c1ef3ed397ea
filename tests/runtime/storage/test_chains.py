"""Receipt chains as the stores keep them (PROTOCOL 16.9)."""

from __future__ import annotations

import pytest

from openguild_proto.effects.channels import DeleteChannel, ReadEvents
from openguild_proto.effects.deliveries import (
    BeginChains,
    ChainPart,
    ChainPoint,
    MoveChains,
    ReadChains,
    ReadEventIds,
)
from openguild_proto.records import Author, LogPosition
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, add_channel, add_guild, add_user, append, new_id

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


def point(log_id: str, sequence: int, epoch: int = 1) -> ChainPoint:
    return ChainPoint(LogPosition(log_id, epoch, sequence), bytes([sequence]) * 32)


async def read(storage: Storage, log_id: str, sequence: int, epoch: int = 1, limit: int = 100) -> ChainPart | None:
    parts = await storage.perform(ReadChains(places=(LogPosition(log_id, epoch, sequence),), limit=limit))
    return parts[0] if parts else None


async def new_channel(storage: Storage, events: int) -> tuple[str, str, tuple[str, ...]]:
    owner = await add_user(storage)
    channel = await add_channel(storage, await add_guild(storage, owner), owner)
    for _ in range(events):
        await storage.perform(append(channel))
    stored = await storage.perform(ReadEvents(log_id=channel, limit=200, after=0))
    assert stored is not None
    return owner, channel, tuple(event.event_id for event in stored)


async def test_a_chain_begins_once(storage: Storage) -> None:
    _, channel, ids = await new_channel(storage, 6)
    assert await read(storage, channel, 6) is None
    await storage.perform(BeginChains(points=(point(channel, 2),)))
    await storage.perform(BeginChains(points=(point(channel, 4), point(new_id(), 1))))
    assert await read(storage, channel, 1) is None, "before it begins"
    assert await read(storage, channel, 6) == ChainPart(point(channel, 2), ids[2:6])
    assert await read(storage, channel, 6, limit=3) == ChainPart(point(channel, 2), ids[2:5])
    assert await read(storage, channel, 6, epoch=2) is None
    await storage.perform(BeginChains(points=(point(channel, 5, epoch=2),)))
    assert await read(storage, channel, 6) is not None, "the log does not count in that epoch"


async def test_the_tip_moves_forward_and_checkpoints_stay(storage: Storage) -> None:
    _, channel, ids = await new_channel(storage, 8)
    await storage.perform(MoveChains(tips=(point(channel, 3),), checkpoints=(point(channel, 2),)))
    assert await read(storage, channel, 8) is None, "it has not begun"
    await storage.perform(BeginChains(points=(point(channel, 1),)))
    await storage.perform(MoveChains(tips=(point(channel, 6),), checkpoints=(point(channel, 4),)))
    await storage.perform(MoveChains(tips=(point(channel, 3),), checkpoints=(point(channel, 4),)))
    await storage.perform(MoveChains(tips=(point(channel, 8, epoch=3),), checkpoints=(point(channel, 7, epoch=3),)))
    found = [await read(storage, channel, sequence) for sequence in range(1, 9)]
    known = [part.point.place.sequence for part in found if part is not None]
    assert known == [1, 1, 1, 4, 4, 6, 6, 6]
    assert found[6] == ChainPart(point(channel, 6), ids[6:7])


async def test_many_chains_in_one_question(storage: Storage) -> None:
    _, one, ids = await new_channel(storage, 3)
    _, two, others = await new_channel(storage, 2)
    await storage.perform(BeginChains(points=(point(one, 0), point(two, 1))))
    places = (LogPosition(two, 1, 2), LogPosition(new_id(), 1, 2), LogPosition(one, 1, 2), LogPosition(two, 1, 1))
    assert await storage.perform(ReadChains(places=places, limit=9)) == (
        ChainPart(point(two, 1), others[1:]),
        ChainPart(point(one, 0), ids[:2]),
        ChainPart(point(two, 1), ()),
    )


async def test_ids_of_events_in_order(storage: Storage) -> None:
    owner, channel, ids = await new_channel(storage, 4)
    assert await storage.perform(ReadEventIds(log_id=channel, after=1, limit=2)) == ids[1:3]
    assert await storage.perform(ReadEventIds(log_id=new_id(), after=0, limit=2)) == ()
    await storage.perform(BeginChains(points=(point(channel, 0),)))
    await storage.perform(DeleteChannel(author=Author(owner), channel_id=channel, now_ms=NOW))
    assert await read(storage, channel, 4) is None

"""A mirror that is about to be replaced is cleared in batches, so that the replacement holds its locks briefly."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from msgspec.structs import replace

from openguild_proto.effects.accounts import InsertUser
from openguild_proto.effects.channels import ListUnread, MarkRead, ReadEvents
from openguild_proto.effects.handovers import AbsorbHistory, FindCopies, StageHistory
from openguild_proto.effects.mirrors import (
    ClearedPart,
    ClearMirror,
    FindMirrorHead,
    MirrorEvents,
    PositionKey,
    ReadSnapshot,
    StoreMirror,
)
from openguild_proto.mirror_records import HistoricEvent, Snapshot
from openguild_proto.records import Author, LogPosition, StoredEvent
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.memory import MemoryStorage
from tests.runtime.storage.conftest import opened
from tests.runtime.storage.test_deadlocks import in_line
from tests.support.owner_server import HERE, NOW_MS, OWNER, Owner, new_id

pytestmark = pytest.mark.anyio

POSTS = 7
HOLD_CHANNEL = "SELECT FROM channels WHERE channel_id = $1 FOR UPDATE"


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Storage]:
    async with opened(database_url, behind_pooler=False) as made:
        yield made


@pytest.fixture
async def looker(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def add_member(store: Storage, owner: Owner, name: str) -> str:
    user_id = new_id()
    await store.perform(InsertUser(user_id, name, f"{name}{user_id}", "", NOW_MS))
    joined = owner.join(user_id, name)
    stored = StoreMirror(OWNER, owner.guild_id, joined.snapshot, NOW_MS, joined.member, joined.place)
    assert await store.perform(stored)
    return user_id


async def deliver(store: Storage, owner: Owner) -> None:
    place = await store.perform(FindMirrorHead(OWNER, owner.channel_id))
    news = owner.news(owner.channel_id, place.sequence if place is not None else 0)
    told = await store.perform(MirrorEvents(OWNER, owner.guild_id, owner.channel_id, 1, news))
    assert told.status == "ok"


async def events_of(store: Storage, owner: Owner) -> tuple[StoredEvent, ...]:
    found = await store.perform(ReadEvents(log_id=owner.channel_id, limit=10, after=0))
    assert found is not None
    return found


def restored(owner: Owner, *, head: int = 5, messages: int = 4) -> Snapshot:
    """Return the guild as its owner shows it under a new epoch."""
    snapshot: Snapshot = owner.do(ReadSnapshot(HERE, owner.guild_id))
    channels = [replace(line, epoch=7, sequence=head, messages=messages) for line in snapshot.channels]
    return replace(snapshot, epoch=7, sequence=9, channels=channels)


async def clear(store: Storage, snapshot: Snapshot, limit: int = 3, origin: str = OWNER) -> int:
    """Clear the mirror as far as it can be. Return how many transactions it took."""
    count = 1
    part = await store.perform(ClearMirror(origin, snapshot, limit))
    while part is not None:
        part = await store.perform(ClearMirror(origin, snapshot, limit, part.past))
        count += 1
    return count


async def test_it_is_cleared_in_batches_and_then_replaced(
    store: Storage, looker: asyncpg.Connection[asyncpg.Record]
) -> None:
    owner = Owner()
    bob = await add_member(store, owner, "bob")
    for number in range(POSTS):
        owner.post(f"@bob {number}")
    await deliver(store, owner)
    assert await store.perform(ClearMirror(OWNER, restored(owner), 3))
    left = await events_of(store, owner)
    assert [event.sequence for event in left] == [4, 5, 6, 7], "the oldest are gone"
    base = "SELECT base_sequence FROM logs WHERE log_id = $1"
    assert await looker.fetchval(base, owner.channel_id) == 3, "it begins later"
    assert await clear(store, restored(owner)) > 1
    assert await events_of(store, owner) == ()
    assert await store.perform(StoreMirror(OWNER, owner.guild_id, restored(owner), NOW_MS))
    place = await store.perform(FindMirrorHead(OWNER, owner.channel_id))
    assert place == LogPosition(owner.channel_id, 7, 5)
    (unread,) = await store.perform(ListUnread(bob, 10))
    assert (unread.last_read_sequence, unread.unread) == (5, 0)


async def test_positions_of_those_who_stay_are_kept_and_others_dropped(
    store: Storage, looker: asyncpg.Connection[asyncpg.Record]
) -> None:
    owner = Owner()
    bob, carol = await add_member(store, owner, "bob"), await add_member(store, owner, "carol")
    for number in range(POSTS):
        owner.post(str(number))
    await deliver(store, owner)
    for user_id, sequence in ((bob, 2), (carol, 6)):
        await store.perform(MarkRead(Author(user_id), owner.channel_id, sequence, NOW_MS))
    snapshot = restored(owner)
    await clear(store, snapshot)
    positions = "SELECT user_id::text, last_read_sequence, last_read_messages, own_since FROM channel_read_state"
    moved = {tuple(row) for row in await looker.fetch(f"{positions} WHERE channel_id = $1", owner.channel_id)}
    assert moved == {(bob, 5, 4, 0), (carol, 5, 4, 0)}
    remaining = [member for member in snapshot.members if member.user_id != carol]
    assert await store.perform(StoreMirror(OWNER, owner.guild_id, replace(snapshot, members=remaining), NOW_MS))
    rows = [tuple(row) for row in await looker.fetch(f"{positions} WHERE channel_id = $1", owner.channel_id)]
    assert rows == [(bob, 5, 4, 0)]


async def test_a_mirror_that_keeps_up_is_left_alone(store: Storage) -> None:
    owner = Owner()
    await add_member(store, owner, "bob")
    owner.post("kept")
    await deliver(store, owner)
    current: Snapshot = owner.do(ReadSnapshot(HERE, owner.guild_id))
    assert not await store.perform(ClearMirror(OWNER, current, 3))
    assert not await store.perform(ClearMirror("thief.example", restored(owner), 3))
    assert not await store.perform(ClearMirror(OWNER, replace(restored(owner), guild_id=new_id()), 3))
    assert len(await events_of(store, owner)) == 1


async def test_a_mirror_whose_replacement_is_refused_is_left_alone(store: Storage) -> None:
    owner, other = Owner(), Owner()
    await add_member(store, owner, "bob")
    await add_member(store, other, "carol")
    owner.post("kept")
    await deliver(store, owner)
    snapshot = restored(owner)
    taken = replace(snapshot, channels=[*snapshot.channels, *restored(other).channels])
    assert await store.perform(ClearMirror(OWNER, taken, 3)) is None
    assert len(await events_of(store, owner)) == 1


async def test_each_batch_of_positions_begins_after_the_one_before(store: Storage) -> None:
    """Also where they are at the head, so that clearing takes as long for the last positions as for the first."""
    owner = Owner()
    owner.post("read by all")
    users = sorted([await add_member(store, owner, name) for name in ("bob", "carol", "dave")])
    snapshot = restored(owner)
    await clear(store, snapshot)
    part = await store.perform(ClearMirror(OWNER, snapshot, 2))
    assert part == ClearedPart(PositionKey(owner.channel_id, users[1]))
    assert await store.perform(ClearMirror(OWNER, snapshot, 2, part.past)) is None


async def test_a_position_may_be_cleared_while_it_is_marked(database_url: str, store: Storage) -> None:
    """The mark is in the log when its right is checked, and before its first event when it is stored."""
    owner = Owner()
    bob = await add_member(store, owner, "bob")
    for number in range(POSTS):
        owner.post(str(number))
    await deliver(store, owner)
    async with in_line(database_url, owner.channel_id, lock=HOLD_CHANNEL) as begin:
        await begin(store.perform(ClearMirror(OWNER, restored(owner), 3)))
        await begin(store.perform(MarkRead(Author(bob), owner.channel_id, 2, NOW_MS)))
    (unread,) = await store.perform(ListUnread(bob, 10))
    assert (unread.last_read_sequence, unread.unread) == (2, 4)


async def test_a_cleared_mirror_goes_on_if_it_is_not_replaced(store: Storage) -> None:
    """As where the process ends in between: the owner's next delivery continues at the head."""
    owner = Owner()
    bob = await add_member(store, owner, "bob")
    owner.post("deleted")
    await deliver(store, owner)
    await clear(store, restored(owner, head=1, messages=1))
    owner.post("news")
    await deliver(store, owner)
    (event,) = await events_of(store, owner)
    assert event.sequence == 2
    (unread,) = await store.perform(ListUnread(bob, 10))
    assert unread.unread == 1


async def stage(store: Storage, owner: Owner) -> None:
    """Stage the history of the channel, as a server does that takes the guild over."""
    lines = tuple(HistoricEvent(event, None, b"") for event in owner.news(owner.channel_id, 0))
    assert await store.perform(StageHistory(OWNER, owner.channel_id, lines)) is None


async def test_a_log_with_its_history_keeps_what_is_not_cleared_yet(store: Storage) -> None:
    owner = Owner()
    owner.post("before")
    await add_member(store, owner, "bob")
    for number in range(POSTS):
        owner.post(str(number))
    await deliver(store, owner)
    await stage(store, owner)
    await store.perform(AbsorbHistory(OWNER, owner.channel_id))
    assert await store.perform(ClearMirror(OWNER, restored(owner), 3))
    copies = await store.perform(FindCopies(OWNER, owner.guild_id))
    assert copies is not None
    copy = copies[1]
    assert (copy.head, copy.base, copy.copied) == (8, 3, 0)
    await store.perform(AbsorbHistory(OWNER, owner.channel_id))  # by a process that has read the copies before
    left = await events_of(store, owner)
    assert [event.sequence for event in left] == [4, 5, 6, 7, 8]


async def test_staged_history_is_deleted_in_batches_and_the_newest_first(
    store: Storage, looker: asyncpg.Connection[asyncpg.Record]
) -> None:
    owner = Owner()
    await add_member(store, owner, "bob")
    for number in range(POSTS):
        owner.post(str(number))
    await deliver(store, owner)
    await stage(store, owner)
    assert await store.perform(ClearMirror(OWNER, restored(owner), 3))
    staged = await looker.fetch(
        "SELECT sequence FROM federation_history WHERE log_id = $1 ORDER BY 1", owner.channel_id
    )
    assert [row["sequence"] for row in staged] == [1, 2, 3, 4], "the rest has no gap"
    await clear(store, restored(owner))
    assert await looker.fetchval("SELECT count(*) FROM federation_history") == 0


async def test_in_memory_nothing_has_to_be_cleared() -> None:
    storage, owner = MemoryStorage(), Owner()
    await add_member(storage, owner, "bob")
    assert not await storage.perform(ClearMirror(OWNER, restored(owner), 1))

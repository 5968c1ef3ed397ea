"""What a mirrored guild holds locked while its owner's events are stored, and in which order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import anyio
import asyncpg
import pytest
from msgspec.structs import replace

from openguild_proto.effects.channels import Appended, ListUnread
from openguild_proto.effects.logs import FindLogHead, ReadLogs
from openguild_proto.effects.mirrors import DropMirror, FindMirrorHead, MirrorEvents, StoreMirror
from openguild_proto.effects.replica import ReadControls
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.mirror_records import MirroredMember
from openguild_proto.operations.mirrored_events import read_mirrored
from openguild_proto.records import Author, LogPart, LogPosition
from openguild_proto.schemas.events import parse_event
from openguild_proto.schemas.log_contents import (
    ChannelDeletedContent,
    LogContent,
    MemberBannedContent,
    MemberJoinedContent,
    MemberRemovedContent,
)
from openguild_proto.schemas.log_writer import LogWriter
from openguild_runtime.storage.postgres import PostgresStorage
from openguild_runtime.storage.postgres.mirror_events import mirror_events
from openguild_runtime.storage.postgres.mirrors import drop_mirror, store_mirror
from openguild_runtime.storage.postgres.transaction import HOLD_IN_ORDER, run_transaction
from tests.runtime.storage.test_deadlocks import deadlocks, in_line
from tests.support.deeds import add_channel, add_guild, add_user, append, login
from tests.support.owner_server import HERE, NOW_MS, OWNER, SIGNER, Owner, keys_at, new_id

pytestmark = pytest.mark.anyio


class Mirrored(NamedTuple):
    """A store that mirrors guilds."""

    store: PostgresStorage
    url: str

    async def guild(self, *members: str) -> Owner:
        """Mirror a new guild, with these members of this server."""
        owner = Owner()
        for user_id in members:
            joined = owner.join(user_id, f"u{user_id[:8]}")
            await self.store.perform(
                StoreMirror(OWNER, owner.guild_id, joined.snapshot, NOW_MS, joined.member, joined.place)
            )
        return owner

    async def news(self, owner: Owner, contents: Sequence[LogContent]) -> MirrorEvents:
        """A delivery with events of the guild's log that say this, as any owner can make them."""
        place = await self.store.perform(FindMirrorHead(OWNER, owner.guild_id))
        assert place is not None
        events = []
        for content in contents:
            place = LogPosition(place.log_id, place.epoch, place.sequence + 1)
            built = LogWriter(OWNER, SIGNER).write(place, content, sender=owner.user_id, now_ms=NOW_MS)
            events.append(read_mirrored(built.wire, place, OWNER, HERE, keys_at, at_ms=NOW_MS, of_guild=True))
        return MirrorEvents(OWNER, owner.guild_id, owner.guild_id, place.epoch, tuple(events))


@pytest.fixture
async def mirrored(database_url: str) -> AsyncIterator[Mirrored]:
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks)
        await store.start()
        yield Mirrored(store, database_url)
        await store.aclose()


async def test_users_whom_a_waiting_delivery_names_post_and_log_in(mirrored: Mirrored) -> None:
    store = mirrored.store
    insider, named = await add_user(store), await add_user(store)
    guild = await add_guild(store, insider)
    channel = await add_channel(store, guild, insider)
    await store.perform(GrantGuildRole(user_id=named, guild_id=guild, role="member", now_ms=NOW_MS))
    owner = await mirrored.guild(insider)
    joins = [MemberJoinedContent(user_id, "x", "member") for user_id in (insider, named)]
    delivery = await mirrored.news(owner, [*joins, *(MemberBannedContent(user_id) for user_id in (insider, named))])
    async with in_line(mirrored.url, owner.guild_id) as begin:
        await begin(store.perform(delivery))
        for number, user_id in enumerate((insider, named), start=1):
            assert isinstance(await store.perform(append(channel, user_id, author=Author(user_id))), Appended)
            assert await store.perform(login(user_id, number))


async def test_a_mirror_that_begins_anew_holds_no_user_whom_its_owner_calls_a_member(mirrored: Mirrored) -> None:
    store = mirrored.store
    insider, named = await add_user(store), await add_user(store)
    owner = await mirrored.guild(insider)
    snapshot = owner.join(new_id()).snapshot
    assert snapshot is not None
    lie = MirroredMember(named, "named", "member", NOW_MS, origin=HERE)
    renewed = replace(snapshot, epoch=2, members=[*snapshot.members, lie])
    async with in_line(mirrored.url, owner.guild_id) as begin:
        await begin(store.perform(StoreMirror(OWNER, owner.guild_id, renewed, NOW_MS)))
        assert await store.perform(login(named, 1))


async def test_deliveries_of_two_guilds_that_the_same_new_users_join_do_not_wait_for_each_other(
    mirrored: Mirrored,
) -> None:
    before = await deadlocks(mirrored.url)
    insider, users = await add_user(mirrored.store), [new_id(), new_id()]
    owners = [await mirrored.guild(insider) for _ in range(2)]
    async with in_line(mirrored.url, *(owner.channel_id for owner in owners)) as begin:
        for owner, (first, second) in zip(owners, (users, users[::-1]), strict=True):
            delivery = await mirrored.news(
                owner,
                [
                    MemberJoinedContent(first, "first", "member"),
                    ChannelDeletedContent(owner.channel_id, "general"),
                    MemberJoinedContent(second, "second", "member"),
                ],
            )
            await begin(mirrored.store.perform(delivery))
    await mirrored.store.aclose()
    assert await deadlocks(mirrored.url) == before


async def test_a_delivery_tells_removed_users_in_the_order_of_their_logs(mirrored: Mirrored) -> None:
    """Beside the end of another mirror, which tells the same users."""
    before = await deadlocks(mirrored.url)
    insider, *users = sorted([await add_user(mirrored.store) for _ in range(3)])
    one, other = await mirrored.guild(insider, *users), await mirrored.guild(*users)
    delivery = await mirrored.news(one, [MemberRemovedContent(user_id) for user_id in reversed(users)])
    async with in_line(mirrored.url, users[0]) as begin:
        await begin(mirrored.store.perform(DropMirror(OWNER, other.guild_id, NOW_MS)))
        await begin(mirrored.store.perform(delivery))
    await mirrored.store.aclose()
    assert await deadlocks(mirrored.url) == before


async def test_the_end_of_a_mirror_holds_the_control_log_for_two_statements(mirrored: Mirrored) -> None:
    """However many users of this server are members: every join and revocation on it waits meanwhile."""
    users = [await add_user(mirrored.store) for _ in range(5)]
    owner = await mirrored.guild(*users)
    connection = await asyncpg.connect(mirrored.url)
    before = await connection.fetchval("SELECT sequence FROM control_head")
    asked: list[str] = []
    with connection.query_logger(lambda record: asked.append(record.query)):
        _, ended = await run_transaction(
            connection, drop_mirror, DropMirror(OWNER, owner.guild_id, NOW_MS), writer=LogWriter(), snapshot=False
        )
    await connection.close()
    assert sum("control_head" in query for query in asked) == 2
    stored = await mirrored.store.perform(ReadControls(after=before, limit=100))
    assert list(stored) == ended.records
    assert [record.user_id for record in stored[:-1]] == sorted(users)


async def test_a_mirror_begins_anew_in_as_many_statements_however_many_are_members(mirrored: Mirrored) -> None:
    """The guild is locked meanwhile, and a transaction has a limited time."""
    counts = []
    for size in (1, 4):
        users = [await add_user(mirrored.store) for _ in range(size)]
        owner = await mirrored.guild(*users)
        snapshot = owner.join(new_id()).snapshot
        assert snapshot is not None
        channels = [replace(line, epoch=2, sequence=7, messages=5) for line in snapshot.channels]
        renewed = replace(snapshot, epoch=2, channels=channels)
        connection = await asyncpg.connect(mirrored.url)
        asked: list[str] = []
        with connection.query_logger(lambda record, asked=asked: asked.append(record.query)):
            await run_transaction(
                connection, store_mirror, StoreMirror(OWNER, owner.guild_id, renewed, NOW_MS), writer=LogWriter(),
                snapshot=False,
            )  # fmt: skip
        await connection.close()
        counts.append(len(asked))
        for user_id in users:
            (state,) = await mirrored.store.perform(ListUnread(user_id=user_id, limit=10))
            assert (state.last_read_sequence, state.latest_sequence, state.unread) == (7, 7, 0)
    assert counts[0] == counts[1]


async def test_removed_users_are_told_together(mirrored: Mirrored) -> None:
    """Their logs are locked meanwhile: who mentions one of them waits, with the whole channel."""
    insider, *users = [await add_user(mirrored.store) for _ in range(4)]
    owner = await mirrored.guild(insider, *users)
    delivery = await mirrored.news(owner, [MemberRemovedContent(user_id) for user_id in users])
    connection = await asyncpg.connect(mirrored.url)
    asked: list[str] = []
    with connection.query_logger(lambda record: asked.append(record.query)):
        await run_transaction(connection, mirror_events, delivery, writer=LogWriter(), snapshot=False)
    await connection.close()
    held = next(place for place, query in enumerate(asked) if query == HOLD_IN_ORDER)
    assert len(asked[held:]) == 5  # and the places, the events, the control log, the commit
    for user_id in users:
        place = await mirrored.store.perform(FindLogHead(user_id))
        assert place is not None
        (told,) = await mirrored.store.perform(ReadLogs((LogPart(user_id, place.sequence - 1, 1),)))
        event = parse_event(told.wire)
        assert (event.event_type, event.sender) == ("guild.left", owner.user_id)

"""The index of messages in PostgreSQL: what it holds, when, and what searches do while it is behind (PROTOCOL 7.11)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import asyncpg
import pytest

from openguild_proto.effects import Overloaded
from openguild_proto.effects.channels import DeleteChannel
from openguild_proto.effects.search import IndexMessages, SearchHit, SearchMessages, SearchTooWide
from openguild_proto.limits import MAX_MESSAGE_CHARS, TURN_SECS
from openguild_proto.policy.search import SearchConditions, parse_phrases, terms_of
from openguild_proto.records import Author, Edit, React, Redact
from openguild_runtime.config.pool_shares import SEARCHERS
from openguild_runtime.server.search_indexing import index
from openguild_runtime.storage.postgres import PostgresStorage, search, search_index
from openguild_runtime.storage.postgres.search_index import SearchIndexer
from tests.runtime.storage.test_mirrors import level, mirrored
from tests.support.deeds import add_channel, add_guild, add_user
from tests.support.messages import changing, post, stored
from tests.support.owner_server import Owner
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio


class Room:
    """A channel, its owner, the store, and a session of its own on the database."""

    def __init__(self, storage: PostgresStorage, database: Any, owner: str, guild: str, channel: str) -> None:
        self.storage, self.database = storage, database
        self.owner, self.guild, self.channel = owner, guild, channel

    async def post(self, text: str) -> str:
        return (await stored(self.storage, post(self.channel, self.owner, text))).event_id

    async def change(self, change: Any) -> None:
        await stored(self.storage, changing(self.channel, self.owner, change))

    async def index(self) -> None:
        await index(self.storage, everywhere=False)

    async def find(self, query: str, reader: str | None = None) -> list[str]:
        effect = SearchMessages(
            reader_id=reader or self.owner, wanted=SearchConditions(phrases=parse_phrases(query)), limit=50
        )
        hits = await self.storage.perform(effect)
        assert isinstance(hits, tuple)
        assert all(isinstance(hit, SearchHit) for hit in hits)
        return [hit.state.event_id for hit in hits]

    async def documents(self) -> list[str]:
        return [
            row["terms"]
            for row in await self.database.fetch("SELECT terms::text FROM search_documents ORDER BY sequence")
        ]

    async def progress(self) -> int | None:
        sequence: int | None = await self.database.fetchval("SELECT max(sequence) FROM search_progress")
        return sequence


@pytest.fixture
async def room(database_url: str) -> AsyncIterator[Room]:
    async with anyio.create_task_group() as tasks:
        storage = PostgresStorage(database_url, tasks, pool_size=8)
        await storage.start()
        database = await asyncpg.connect(database_url)
        owner = await add_user(storage)
        guild = await add_guild(storage, owner)
        yield Room(storage, database, owner, guild, await add_channel(storage, guild, owner))
        await database.close()
        await storage.aclose()


async def test_a_post_is_found_before_and_after_it_is_indexed(room: Room) -> None:
    first = await room.post("a cup of tea")
    assert await room.documents() == []
    assert await room.find("tea") == [first]
    await room.index()
    assert len(await room.documents()) == 1
    assert await room.progress() == 1
    assert await room.find("tea") == [first]


async def test_a_look_through_all_logs_counts_what_is_not_indexed(room: Room) -> None:
    for number in range(3):
        await room.post(f"tea {number}")
    await room.change(React(await room.post("cake"), "+1", adds=True))  # is nothing to index
    assert room.storage.stats().unindexed == 0, "nobody has looked yet"
    for expected in (4, 0):
        await index(room.storage, everywhere=True)
        assert room.storage.stats().unindexed == expected


async def test_an_edit_and_a_redaction_reach_the_index_with_their_event(room: Room) -> None:
    first, second = await room.post("alpha"), await room.post("beta")
    await room.index()
    await room.change(Edit(first, "gamma https://example.com"))
    await room.change(React(first, "+1", adds=True))
    texts = await room.documents()
    assert ["alpha" in text for text in texts] == [False, False]
    assert ["gamma" in text and "/link" in text for text in texts] == [True, False]
    await room.change(Redact(first))
    (text,) = await room.documents()
    assert "beta" in text
    assert await room.find("gamma") == []
    assert await room.find("beta") == [second]


async def test_what_changes_before_it_is_indexed_is_indexed_as_it_is(room: Room) -> None:
    first, second = await room.post("alpha"), await room.post("beta")
    await room.change(Edit(first, "gamma"))
    await room.change(Redact(second))
    await room.index()
    (text,) = await room.documents()
    assert "gamma" in text
    assert "alpha" not in text
    assert await room.find("gamma") == [first]


async def test_an_edited_reply_stays_one(room: Room) -> None:
    first = await room.post("question")
    answer = await stored(room.storage, post(room.channel, room.owner, "answer", reply_to=first))
    await room.index()
    await room.change(Edit(answer.event_id, "better"))
    assert ["/reply" in text for text in await room.documents()] == [False, True]


async def test_two_replicas_do_not_index_one_log_at_once(room: Room, database_url: str) -> None:
    await room.post("tea")
    first, second = SearchIndexer(), SearchIndexer()
    other = await asyncpg.connect(database_url)
    for indexer in (first, second):
        await indexer.find_behind(room.database)
        assert not indexer.is_idle
    async with other.transaction():
        await other.execute("SELECT search_hold_v1($1)", [room.channel])  # as a change of a message does
        assert await first.index(room.database) is False
        assert await room.documents() == []
    await first.find_behind(room.database)
    assert await first.index(room.database) is False
    assert len(await room.documents()) == 1
    assert await second.index(other) is False, "nothing is left"
    assert len(await room.documents()) == 1
    await other.close()


async def test_a_change_waits_for_the_indexing_of_its_log(room: Room, database_url: str) -> None:
    """The other order would index the text from before."""
    first = await room.post("alpha")
    async with anyio.create_task_group() as tasks, room.database.transaction():
        claimed = await room.database.fetch(search_index.CLAIM, [room.channel], 10)
        assert [row["sequence"] for row in claimed] == [1]
        tasks.start_soon(room.change, Edit(first, "beta"))
        waiting = await asyncpg.connect(database_url)
        await until(waiting, "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        await waiting.close()
        await room.database.execute(
            search_index.INDEX, [room.channel], [1], [claimed[0]["created_at"]], ["'alpha':1"],
            [room.channel], [1], [1], [claimed[0]["created_at"]],
        )  # fmt: skip
    (text,) = await room.documents()
    assert "beta" in text
    assert "alpha" not in text


async def test_what_a_killed_replica_left_another_one_finds(room: Room, database_url: str) -> None:
    await room.post("tea")  # this store knows of it, and never indexes
    async with anyio.create_task_group() as tasks:
        other = PostgresStorage(database_url, tasks, pool_size=8)
        await other.start()
        assert await other.perform(IndexMessages()) is False
        await index(other, everywhere=True)
        await other.aclose()
    assert len(await room.documents()) == 1


async def test_an_indexing_that_fails_is_repeated(room: Room) -> None:
    await room.post("tea")
    await room.database.execute("ALTER TABLE search_documents ADD CONSTRAINT never CHECK (false)")
    with pytest.raises(asyncpg.CheckViolationError):
        await room.index()
    await room.database.execute("ALTER TABLE search_documents DROP CONSTRAINT never")
    await room.index()
    assert len(await room.documents()) == 1


async def test_long_logs_are_indexed_in_several_transactions(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_index, "CLAIM_MESSAGES", 2)
    other = await add_channel(room.storage, room.guild, room.owner)
    for channel in (room.channel, other):
        for number in range(5):
            await stored(room.storage, post(channel, room.owner, f"tea {number}"))
    assert await room.storage.perform(IndexMessages()) is True
    assert len(await room.documents()) == 2
    await room.index()
    assert len(await room.documents()) == 10


async def test_posts_of_a_mirrored_channel_are_indexed_as_others(room: Room) -> None:
    """Not only by the look through all logs: of many that are not indexed every search of their readers is refused."""
    owner = Owner()
    reader = await mirrored(room.storage, owner)
    first = owner.post("tea")
    await level(room.storage, owner, owner.channel_id)
    await room.index()
    assert len(await room.documents()) == 1
    owner.append("reaction.added", {"target": first.event_id, "emoji": "x"})
    second = owner.post("more tea")
    await level(room.storage, owner, owner.channel_id)
    await room.index()
    assert len(await room.documents()) == 2
    assert await room.find("tea", reader) == [second.event_id, first.event_id]


async def test_a_few_posts_wait_for_others(room: Room) -> None:
    """However many come: each transaction indexes what the last second brought."""
    await room.post("tea")
    assert await room.storage.perform(IndexMessages()) is False
    await room.post("cake")
    assert await room.storage.perform(IndexMessages()) is False
    assert len(await room.documents()) == 2


async def test_a_deleted_channel_leaves_nothing(room: Room) -> None:
    await room.post("tea")
    await room.index()
    await room.storage.perform(DeleteChannel(author=Author(room.owner), channel_id=room.channel, now_ms=1))
    assert await room.documents() == []
    assert await room.progress() is None


async def test_every_text_fits_the_index(room: Room) -> None:
    texts = ["x" * MAX_MESSAGE_CHARS, "a " * (MAX_MESSAGE_CHARS // 2), "\ufdfa" * MAX_MESSAGE_CHARS, "'\\ \":&|!" * 400]
    texts.append("".join(chr(0x4E00 + number % 20_000) for number in range(MAX_MESSAGE_CHARS)))
    for text in texts:
        await room.post(text)
    await room.index()
    assert len(await room.documents()) == len(texts)


async def test_a_search_waits_for_the_index_rather_than_miss_messages(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "TAIL_MOST", 1)
    first = await room.post("tea")
    assert await room.find("tea") == [first]
    second = await room.post("tea")
    with pytest.raises(Overloaded):
        await room.find("tea")
    await room.index()
    assert await room.find("tea") == [second, first]


async def test_a_search_that_takes_too_long_is_given_up_and_no_fault(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is well: nothing is logged, and no write is probed."""
    monkeypatch.setattr(search, "LIMIT_SECS", 0.01)
    monkeypatch.setattr(search, "SEARCH", f"{search.SEARCH}, (SELECT pg_sleep(60)) AS slow")
    await room.post("tea")
    effect = SearchMessages(reader_id=room.owner, wanted=SearchConditions(phrases=parse_phrases("tea")), limit=5)
    with anyio.fail_after(30):
        assert await room.storage.perform(effect) == SearchTooWide()
    assert (await room.storage.check()).usable
    await room.post("more")


async def test_searches_leave_places_to_others(room: Room, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many wait, two run, of each user one, and posts and reads go on (PROTOCOL 7.11.10)."""
    monkeypatch.setattr(search, "LIMIT_SECS", 60)  # not one of these is too wide
    await room.post("tea")
    others = [await add_user(room.storage) for _ in range(3)]
    for other in others:
        channel = await add_channel(room.storage, await add_guild(room.storage, other), other)
        await stored(room.storage, post(channel, other, "tea"))
    await room.index()
    async with anyio.create_task_group() as tasks, room.database.transaction():
        await room.database.execute("LOCK TABLE search_documents")
        for _ in range(20):
            tasks.start_soon(room.find, "tea")
        watching = await asyncpg.connect(database_url)
        waiting = "FROM pg_locks WHERE relation = 'search_documents'::regclass AND NOT granted"
        await until(watching, f"SELECT count(*) > 0 {waiting}")
        await room.post("more")
        assert await watching.fetchval(f"SELECT count(*) {waiting}") == 1
        for other in others:
            tasks.start_soon(room.find, "tea", other)
        await until(watching, f"SELECT count(*) = {SEARCHERS} {waiting}")
        await room.post("more")
        assert await watching.fetchval(f"SELECT count(*) {waiting}") == SEARCHERS
        await watching.close()


async def until(connection: Any, condition: str) -> None:
    """Return when the query says true."""

    async def holds() -> bool:
        return bool(await connection.fetchval(condition))

    await eventually(holds)


async def test_many_edits_at_once_leave_others_their_turns(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [await room.post(f"tea {number}") for number in range(20)]
    turns, splitting = [0], []

    def split(text: str) -> dict[str, list[int]]:
        splitting.append(turns[0])
        time.sleep(2 * TURN_SECS)  # as if it took so long: work, nothing that is waited for
        return terms_of(text)

    async def other() -> None:
        while True:
            turns[0] += 1
            await anyio.lowlevel.checkpoint()

    monkeypatch.setattr("openguild_runtime.storage.postgres.search_terms.terms_of", split)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        async with anyio.create_task_group() as edits:
            for message in messages:
                edits.start_soon(room.change, Edit(message, "coffee"))
        tasks.cancel_scope.cancel()
    assert len(set(splitting)) == len(messages), "two were split without a pause in between"
    assert sorted(await room.find("coffee")) == sorted(messages)

"""The channel log on both stores: dense sequences, idempotent appends, pages, read positions (PROTOCOL 7)."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from openguild_proto.effects.channels import (
    Appended,
    AppendFailure,
    DeleteChannel,
    FindChannelAccess,
    FindPosted,
    InsertChannel,
    ListChannels,
    ListUnread,
    MarkRead,
    PageBounds,
    Posted,
    ReadEvents,
    UpdateChannel,
)
from openguild_proto.errors import LocalProtocolError, Refusal
from openguild_proto.limits import MAX_SEQUENCE
from openguild_proto.records import Author, ChannelRecord, PageCursor, StoredEvent
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, add_channel, add_guild, add_user, append, controls, heads, new_id

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


@pytest.fixture
async def owner(storage: Storage) -> str:
    return await add_user(storage)


@pytest.fixture
async def channel_id(storage: Storage, owner: str) -> str:
    return await add_channel(storage, await add_guild(storage, owner), owner)


async def fill(storage: Storage, channel_id: str, count: int) -> list[StoredEvent]:
    events = []
    for number in range(1, count + 1):
        outcome = await storage.perform(append(channel_id, text=str(number)))
        assert isinstance(outcome, Appended)
        events.append(outcome.event)
    return events


async def test_sequences_are_dense_per_channel(storage: Storage, channel_id: str, owner: str) -> None:
    """Every channel counts for itself (PROTOCOL 7.1.1)."""
    access = await storage.perform(FindChannelAccess(channel_id=channel_id, user_id=new_id()))
    assert access is not None
    other = await add_channel(storage, access.channel.guild_id, owner, "other")
    for number in range(1, 4):
        for channel in (channel_id, other):
            outcome = await storage.perform(append(channel))
            assert isinstance(outcome, Appended)
            assert outcome.event.sequence == number
    assert await heads(storage, [channel_id, other, new_id()]) == {channel_id: 3, other: 3}


async def test_a_new_channel_has_its_first_epoch_wherever_it_is_described(storage: Storage) -> None:
    user = await add_user(storage)
    guild = await add_guild(storage, user)
    made = await storage.perform(
        InsertChannel(author=Author(user), channel_id=new_id(), guild_id=guild, name="general", now_ms=NOW)
    )
    assert isinstance(made, ChannelRecord)
    assert made.epoch == 1
    access = await storage.perform(FindChannelAccess(channel_id=made.channel_id, user_id=user))
    assert access is not None
    assert access.channel == made
    assert await storage.perform(ListChannels(guild_id=guild)) == (made,)
    assert (
        await storage.perform(
            UpdateChannel(author=Author(user), channel_id=made.channel_id, name="general", now_ms=NOW)
        )
        == made
    )
    (control,) = [record for record in await controls(storage, 0, 100) if record.channel_id == made.channel_id]
    assert '"epoch":1' in (control.body or "")
    await storage.perform(append(made.channel_id))
    access = await storage.perform(FindChannelAccess(channel_id=made.channel_id, user_id=user))
    assert access is not None
    assert (access.channel.epoch, access.head) == (1, 1), "the same for the life of the log"


async def test_concurrent_appends_leave_no_hole_and_show_in_order(storage: Storage, channel_id: str) -> None:
    """Whoever reads while others write never sees n without everything before n (PROTOCOL 7.1.2)."""
    sequences: list[int] = []
    seen: list[list[int]] = []

    async def post() -> None:
        outcome = await storage.perform(append(channel_id))
        assert isinstance(outcome, Appended)
        sequences.append(outcome.event.sequence)

    async def read() -> None:
        page = await storage.perform(ReadEvents(log_id=channel_id, after=0, limit=200))
        seen.append([event.sequence for event in page or ()])

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(post)
            if number % 5 == 0:
                tasks.start_soon(read)
    assert sorted(sequences) == list(range(1, 101))
    for page in seen:
        assert page == list(range(1, len(page) + 1))


async def test_a_repeated_nonce_stores_once(storage: Storage, channel_id: str) -> None:
    """The repeat answers with the first event; other content under the same nonce is refused (PROTOCOL 7.5)."""
    first = await storage.perform(append(channel_id, "alice", "hello", nonce="n1"))
    again = await storage.perform(append(channel_id, "alice", "hello", nonce="n1"))
    assert isinstance(first, Appended)
    assert isinstance(again, Appended)
    assert (again.repeated, again.event) == (True, first.event)
    assert await storage.perform(append(channel_id, "alice", "other", nonce="n1")) == AppendFailure("nonce_reused")
    for sender, nonce in (("bob", "n1"), ("alice", "n2")):
        other = await storage.perform(append(channel_id, sender, "hello", nonce=nonce))
        assert isinstance(other, Appended)
        assert not other.repeated
    assert await heads(storage, [channel_id]) == {channel_id: 3}


async def test_a_post_is_found_by_its_nonce(storage: Storage, channel_id: str) -> None:
    """By channel, sender and nonce together (PROTOCOL 7.5.2)."""
    effect = append(channel_id, "alice", "hello", nonce="n1")
    stored = await storage.perform(effect)
    assert isinstance(stored, Appended)
    await storage.perform(append(channel_id, "alice", "without"))

    async def find(channel: str, sender: str, nonce: str) -> Posted | None:
        return await storage.perform(FindPosted(channel_id=channel, sender_id=sender, nonce=nonce))

    assert await find(channel_id, "alice", "n1") == Posted(stored.event, effect.fingerprint)
    assert [await find(channel_id, "bob", "n1"), await find(channel_id, "alice", "n2")] == [None, None]
    assert await find(new_id(), "alice", "n1") is None


async def test_the_same_nonce_at_the_same_time_stores_once(storage: Storage, channel_id: str) -> None:
    outcomes: list[object] = []

    async def post() -> None:
        outcomes.append(await storage.perform(append(channel_id, "alice", "hello", nonce="same")))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(post)
    repeats = [outcome.repeated for outcome in outcomes if isinstance(outcome, Appended)]
    assert sorted(repeats) == [False] + [True] * 19
    assert await heads(storage, [channel_id]) == {channel_id: 1}


async def test_one_bad_append_fails_alone(storage: Storage, channel_id: str) -> None:
    outcomes: dict[str, object] = {}

    async def post(name: str, channel: str) -> None:
        outcomes[name] = await storage.perform(append(channel))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(post, "good", channel_id)
        tasks.start_soon(post, "unknown", new_id())
        tasks.start_soon(post, "good too", channel_id)
    assert outcomes["unknown"] == AppendFailure("no_channel")
    assert isinstance(outcomes["good"], Appended)
    assert isinstance(outcomes["good too"], Appended)


async def test_pages_after_before_and_newest(storage: Storage, channel_id: str) -> None:
    """`after` gives the first events behind it, on both stores (PROTOCOL 7.6.1)."""
    events = await fill(storage, channel_id, 10)

    async def page(**bounds: int) -> list[int]:
        found = await storage.perform(ReadEvents(log_id=channel_id, limit=3, **bounds))
        assert found is not None
        assert all(event == events[event.sequence - 1] for event in found)
        question = FindChannelAccess(channel_id, new_id(), page=PageBounds(3, **bounds))
        access = await storage.perform(question)  # the same events, whatever the user may see
        assert access is not None
        assert access.page is not None
        assert access.page.events == tuple((event.sequence, event.wire) for event in found)
        return [event.sequence for event in found]

    assert await page(after=0) == [1, 2, 3]
    assert await page(after=4) == [5, 6, 7]
    assert await page(after=9) == [10]
    assert await page(after=10) == []
    assert await page(after=99) == []
    assert await page(before=11) == [8, 9, 10]
    assert await page(before=5) == [2, 3, 4]
    assert await page(before=2) == [1]
    assert await page(before=1) == []
    assert await page() == [8, 9, 10]
    assert await page(after=MAX_SEQUENCE) == []
    assert await page(before=MAX_SEQUENCE) == [8, 9, 10]


async def test_readers_of_the_same_page_have_their_own_roles(storage: Storage, channel_id: str, owner: str) -> None:
    events = await fill(storage, channel_id, 3)
    users = [owner if number % 3 == 0 else new_id() for number in range(40)]
    questions = [FindChannelAccess(channel_id, user, page=PageBounds(2)) for user in users]
    accesses = await asyncio.gather(*[storage.perform(question) for question in questions])
    for user, access in zip(users, accesses, strict=True):
        assert access is not None
        assert access.page is not None
        assert access.page.events == tuple((event.sequence, event.wire) for event in events[1:])
        assert (access.guild_role is not None) == (user == owner)


async def test_pages_of_an_empty_and_of_an_unknown_channel(storage: Storage, channel_id: str) -> None:
    assert await storage.perform(ReadEvents(log_id=channel_id, limit=10)) == ()
    assert await storage.perform(ReadEvents(log_id=new_id(), limit=10)) is None
    assert await storage.perform(FindChannelAccess(new_id(), new_id(), page=PageBounds(10))) is None
    with pytest.raises(LocalProtocolError):
        await storage.perform(ReadEvents(log_id=channel_id, limit=10, after=1, before=5))


async def test_the_read_position_never_falls_and_stays_within_the_log(
    storage: Storage, channel_id: str, owner: str
) -> None:
    """What is answered is what is stored (PROTOCOL 7.7.2)."""
    author = Author(owner)
    await fill(storage, channel_id, 5)

    async def mark(sequence: int | None) -> int:
        state = await storage.perform(MarkRead(author=author, channel_id=channel_id, sequence=sequence, now_ms=NOW))
        assert state.latest_sequence == 5
        return state.last_read_sequence

    assert [await mark(sequence) for sequence in (2, 1, -7, 4, 99, None, 3)] == [2, 2, 2, 4, 5, 5, 5]
    assert [await mark(sequence) for sequence in (-MAX_SEQUENCE - 1, MAX_SEQUENCE)] == [5, 5]
    with pytest.raises(Refusal):
        await storage.perform(MarkRead(author=author, channel_id=new_id(), sequence=1, now_ms=NOW))


async def test_unread_lists_every_channel_the_user_may_see(storage: Storage, channel_id: str) -> None:
    access = await storage.perform(FindChannelAccess(channel_id=channel_id, user_id=new_id()))
    assert access is not None
    owner = await add_user(storage)
    mine = await add_channel(storage, await add_guild(storage, owner), owner, now_ms=NOW + 5)
    await fill(storage, mine, 3)
    await storage.perform(MarkRead(author=Author(owner), channel_id=mine, sequence=1, now_ms=NOW))
    (state,) = await storage.perform(ListUnread(user_id=owner))
    assert (state.channel_id, state.last_read_sequence, state.latest_sequence) == (mine, 1, 3)


async def test_unread_lines_are_paged_oldest_channel_first(storage: Storage) -> None:
    owner = await add_user(storage)
    guilds = [await add_guild(storage, owner) for _ in range(2)]
    channels = [await add_channel(storage, guilds[n % 2], owner, now_ms=NOW + n) for n in range(5)]
    paged: list[str] = []
    after: PageCursor | None = None
    while page := await storage.perform(ListUnread(user_id=owner, limit=2, after=after)):
        assert len(page) <= 2
        paged += [state.channel_id for state in page]
        after = PageCursor(page[-1].created_at_ms, page[-1].channel_id)
    assert paged == channels


async def test_a_deleted_channel_takes_its_log_along(storage: Storage, channel_id: str, owner: str) -> None:
    await fill(storage, channel_id, 2)
    deletion = DeleteChannel(author=Author(owner), channel_id=channel_id, now_ms=NOW)
    await storage.perform(deletion)
    with pytest.raises(Refusal):
        await storage.perform(deletion)
    assert await storage.perform(append(channel_id)) == AppendFailure("no_channel")
    assert await storage.perform(ReadEvents(log_id=channel_id, limit=1)) is None
    assert await heads(storage, [channel_id]) == {}

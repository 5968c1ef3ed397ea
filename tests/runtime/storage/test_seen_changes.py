"""Changes of messages are decided on what is read without locks, unless that has changed when they are stored (PROTOCOL 6.6)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import anyio
import pytest
from msgspec.structs import replace

from openguild_proto.effects.channels import Appended, AppendEvent, AppendFailure, DeleteChannel, ReadEvents, Unchanged
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.limits import MAX_MESSAGE_EMOJI, MAX_MESSAGE_VERSIONS
from openguild_proto.policy.reactions import EmojiUse, write_reactions
from openguild_proto.records import Author, Edit, MessageState, React, Redact, SeenMessage
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.postgres import PostgresStorage
from openguild_runtime.storage.postgres.changes import find_seen_messages, judge_and_write
from openguild_runtime.storage.postgres.values import Connection
from tests.support.deeds import NOW, add_channel, add_guild, add_user
from tests.support.messages import changing, counts, found, new_event_id, post, reacted, stored
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

LOCK_MS = 1_000
WAITING = "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


class Place(NamedTuple):
    """A channel that two replicas serve, its owner, a member, and a message of the member's."""

    here: PostgresStorage
    there: PostgresStorage
    guild_id: str
    channel_id: str
    owner: str
    member: str
    target: str


@pytest.fixture
async def place(database_url: str, long_lock_timeout: None) -> AsyncIterator[Place]:
    async with anyio.create_task_group() as tasks:
        here, there = [PostgresStorage(database_url, tasks, pool_size=4) for _ in range(2)]
        for store in (here, there):
            await store.start()
        owner, member = await add_user(here), await add_user(here)
        guild_id = await add_guild(here, owner)
        await here.perform(GrantGuildRole(guild_id=guild_id, user_id=member, role="member", now_ms=NOW))
        channel_id = await add_channel(here, guild_id, owner)
        message = await stored(here, post(channel_id, member, "hello"))
        yield Place(here, there, guild_id, channel_id, owner, member, message.event_id)
        for store in (here, there):
            await store.aclose()


async def attempt(storage: Storage, effect: AppendEvent) -> Any:
    """The outcome, or the code of the refusal."""
    try:
        return await storage.perform(effect)
    except Refusal as refusal:
        return refusal.code


async def state_of(place: Place) -> MessageState:
    return (await found(place.here, place.channel_id, place.target)).state


@asynccontextmanager
async def changed_meanwhile(place: Place, effect: AppendEvent) -> AsyncIterator[None]:
    """Another transaction stores `effect` first: whatever begins within has seen the message as it was before, and waits."""

    async def store_and_wait(connection: Connection) -> None:
        async with connection.transaction(isolation="read_committed"):
            (outcome,) = await judge_and_write(connection, [effect], LOCK_MS)
            assert isinstance(outcome, Appended)
            stored_there.set()
            await eventually(lambda: connection.fetchval(WAITING), what="the other change waits")

    stored_there = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: place.there._pool.lend(store_and_wait, writes=True))
        await stored_there.wait()
        yield


async def test_what_is_seen_tells_the_message_and_its_revision(place: Place) -> None:
    async def seen(effect: AppendEvent) -> SeenMessage | None:
        (message,) = await place.here._pool.lend(
            lambda connection: find_seen_messages(connection, [effect]), writes=False
        )
        return message

    react = changing(place.channel_id, place.owner, React(place.target, "+1", adds=True))
    state = MessageState(1, place.target, place.member, NOW)
    assert await seen(react) == SeenMessage(state, revision=0, has_reacted=False)
    await stored(place.here, react)
    reactions = write_reactions([EmojiUse("+1", 1, me=False, reactors=[place.owner])])
    assert await seen(react) == SeenMessage(replace(state, reactions=reactions), revision=2, has_reacted=True)
    other = await seen(changing(place.channel_id, place.member, React(place.target, "+1", adds=True)))
    assert other is not None
    assert not other.has_reacted
    assert await seen(changing(place.channel_id, place.member, Edit(new_event_id(), "x"))) is None


@pytest.mark.parametrize("kind", ["edit", "reply", "reaction"])
async def test_a_message_that_changed_meanwhile_is_read_anew(place: Place, kind: str) -> None:
    channel_id, target = place.channel_id, place.target
    meanwhile = {
        "edit": changing(channel_id, place.member, Edit(target, "another")),
        "reply": post(channel_id, place.owner, "indeed", reply_to=target),
        "reaction": changing(channel_id, place.owner, React(target, "+1", adds=True)),
    }[kind]
    async with changed_meanwhile(place, meanwhile):
        event = await stored(place.here, changing(channel_id, place.member, Edit(target, "mine")))
    assert event.sequence == 3
    state = await state_of(place)
    expected = 2 + (kind == "edit"), int(kind == "reply"), int(kind == "reaction")
    assert (state.versions, state.replies, len(counts(state))) == expected
    assert state.edited_text == "mine"


@pytest.mark.parametrize("kind", ["edit", "reply", "reaction"])
async def test_a_message_that_was_taken_back_meanwhile_is_not_changed(place: Place, kind: str) -> None:
    channel_id, target = place.channel_id, place.target
    effect = {
        "edit": changing(channel_id, place.member, Edit(target, "secret")),
        "reply": post(channel_id, place.member, "secret", reply_to=target),
        "reaction": changing(channel_id, place.member, React(target, "+1", adds=True)),
    }[kind]
    async with changed_meanwhile(place, changing(channel_id, place.member, Redact(target))):
        assert await attempt(place.here, effect) is ErrorCode.MESSAGE_REDACTED


async def test_what_is_forbidden_by_now_is_refused(place: Place) -> None:
    channel_id, target = place.channel_id, place.target

    edit = changing(channel_id, place.member, Edit(target, "x"))
    reply = post(channel_id, place.member, "x", reply_to=target)
    gone = replace(edit, author=Author(place.member, "00000000-0000-4000-8000-000000000009"))
    assert await attempt(place.here, gone) is ErrorCode.UNAUTHORIZED
    demoted = GrantGuildRole(guild_id=place.guild_id, user_id=place.member, role="viewer", now_ms=NOW)
    await place.there.perform(demoted)
    assert await attempt(place.here, edit) is ErrorCode.FORBIDDEN
    assert await attempt(place.here, reply) is ErrorCode.FORBIDDEN
    await place.there.perform(replace(demoted, role="member"))
    await stored(place.there, changing(channel_id, place.member, Redact(target)))
    assert await attempt(place.here, edit) is ErrorCode.MESSAGE_REDACTED
    assert await attempt(place.here, reply) is ErrorCode.MESSAGE_REDACTED
    await place.there.perform(DeleteChannel(author=Author(place.owner), channel_id=channel_id, now_ms=NOW))
    assert await attempt(place.here, edit) == AppendFailure("no_channel")


async def test_a_repeat_answers_as_the_first_did(place: Place) -> None:
    react = changing(place.channel_id, place.member, React(place.target, "+1", adds=True), nonce="n")
    event = await stored(place.here, react)
    assert await place.here.perform(react) == Appended(event, repeated=True)
    other = changing(place.channel_id, place.member, Edit(place.target, "x"), nonce="n")
    assert await place.here.perform(other) == AppendFailure("nonce_reused")
    again = changing(place.channel_id, place.member, React(place.target, "+1", adds=True))
    assert isinstance(await place.here.perform(again), Unchanged)


async def test_two_edits_on_two_replicas_at_once_are_two_versions(place: Place) -> None:
    edits = [changing(place.channel_id, place.member, Edit(place.target, text)) for text in ("one", "two")]
    events = await on_both(place, *edits)
    assert sorted(outcome.event.sequence for outcome in events) == [2, 3]
    state = await state_of(place)
    assert (state.versions, state.edited_text) == (3, "two" if events[1].event.sequence == 3 else "one")


async def test_an_edit_and_a_redaction_on_two_replicas_leave_no_text(place: Place) -> None:
    for _ in range(10):
        message = await stored(place.here, post(place.channel_id, place.member, "hello-secret"))
        edit = changing(place.channel_id, place.member, Edit(message.event_id, "edit-secret"))
        redact = changing(place.channel_id, place.member, Redact(message.event_id))
        edited, redacted = await on_both(place, edit, redact)
        assert isinstance(redacted, Appended)
        assert edited is ErrorCode.MESSAGE_REDACTED or edited.event.sequence < redacted.event.sequence
    events = await place.here.perform(ReadEvents(log_id=place.channel_id, limit=100))
    assert events is not None
    assert not any(b"secret" in event.wire for event in events)


async def test_the_last_place_for_an_emoji_is_given_once_on_two_replicas(place: Place) -> None:
    for number in range(MAX_MESSAGE_EMOJI - 1):
        await stored(place.here, changing(place.channel_id, place.owner, React(place.target, f"e{number}", adds=True)))
    reactions = [
        changing(place.channel_id, place.member, React(place.target, emoji, adds=True)) for emoji in ("one", "two")
    ]
    outcomes = await on_both(place, *reactions)
    assert sorted(isinstance(outcome, Appended) for outcome in outcomes) == [False, True]
    assert ErrorCode.LIMIT_REACHED in outcomes
    assert len(counts(await state_of(place))) == MAX_MESSAGE_EMOJI


async def test_changes_and_posts_that_wait_together_are_stored_in_their_order(place: Place) -> None:
    channel_id, target = place.channel_id, place.target
    other = await stored(place.here, post(channel_id, place.member, "other"))
    effects = [
        post(channel_id, place.member, "before"),
        changing(channel_id, place.member, Edit(target, "first")),
        changing(channel_id, place.member, Edit(target, "second")),
        changing(channel_id, place.member, React(target, "+1", adds=True)),
        changing(channel_id, place.owner, React(target, "+1", adds=True)),
        changing(channel_id, place.owner, React(other.event_id, "+1", adds=True)),
        post(channel_id, place.owner, "indeed", reply_to=target),
        changing(channel_id, place.member, React(target, "heart", adds=True)),
        changing(channel_id, place.member, React(target, "heart", adds=False)),
    ]
    outcomes = await place_together(place.here, effects)
    assert [outcome.event.sequence for outcome in outcomes] == list(range(3, 12))
    message = await found(place.here, channel_id, target, place.member)
    state = message.state
    assert (state.edited_text, state.versions, state.replies) == ("second", 3, 1)
    assert counts(state) == (("+1", 2),)
    assert reacted(message, place.member) == ("+1",)
    await stored(place.here, changing(channel_id, place.member, React(target, "+1", adds=False)))
    message = await found(place.here, channel_id, target, place.member)
    assert (counts(message.state), reacted(message, place.member)) == ((("+1", 1),), ())


async def test_many_edits_at_once_keep_the_bound_of_versions(place: Place) -> None:
    async def edit(number: int) -> Any:
        store = (place.here, place.there)[number % 2]
        effect = changing(place.channel_id, place.member, Edit(place.target, f"text {number}"))
        return await attempt(store, effect)

    outcomes = await gathered([lambda number=number: edit(number) for number in range(MAX_MESSAGE_VERSIONS + 5)])
    stored_ones = [outcome.event.sequence for outcome in outcomes if isinstance(outcome, Appended)]
    assert sorted(stored_ones) == list(range(2, MAX_MESSAGE_VERSIONS + 1))
    assert outcomes.count(ErrorCode.LIMIT_REACHED) == 6
    assert (await state_of(place)).versions == MAX_MESSAGE_VERSIONS


async def on_both(place: Place, here: AppendEvent, there: AppendEvent) -> list[Any]:
    return await gathered([lambda: attempt(place.here, here), lambda: attempt(place.there, there)])


async def place_together(storage: Storage, effects: list[AppendEvent]) -> list[Any]:
    return await gathered([lambda effect=effect: attempt(storage, effect) for effect in effects])


async def gathered(calls: list[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """The results of calls that run at once."""
    results: list[Any] = [None] * len(calls)

    async def run(number: int) -> None:
        results[number] = await calls[number]()

    async with anyio.create_task_group() as tasks:
        for number in range(len(calls)):
            tasks.start_soon(run, number)
    return results

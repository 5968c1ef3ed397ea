"""Random histories of messages end the same in both stores; and after a redaction no table holds the text."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import asyncpg
import hypothesis.strategies as st
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, given, settings

from openguild_proto.client.view import ChannelView
from openguild_proto.effects.accounts import InsertUser
from openguild_proto.effects.channels import AppendEvent, InsertChannel, ListUnread, ReadEvents
from openguild_proto.effects.guilds import InsertGuild
from openguild_proto.effects.messages import FindMessage, ListPins, ReadMessages, ReadVersions
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.errors import Refusal
from openguild_proto.records import Author, ClearReactions, Edit, Pin, React, Redact
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.memory import MemoryStorage
from openguild_runtime.storage.postgres import PostgresStorage
from tests.support.deeds import NOW, add_channel, add_guild, add_user, new_id
from tests.support.messages import changing, counts, new_event_id, post, stored

USERS = tuple(f"00000000-0000-4000-8000-00000000000{number}" for number in range(4))
ROLES = ("owner", "moderator", "member", "viewer")
GUILD = "00000000-0000-4000-8000-000000000100"

# What is done, by whom, and to which of the events so far; the batches are performed at once. With every batch: whether the
# messages that it changes are read before.
STEP = st.tuples(
    st.sampled_from(
        ["post", "post", "reply", "edit", "redact", "add", "add", "take", "clear", "clear all", "pin", "unpin", "again"]
    ),
    st.integers(0, len(USERS) - 1),
    st.integers(0, 7),
    st.sampled_from(["+1", "heart", "🎉"]),
)
REACTION = st.tuples(
    st.sampled_from(["add", "add", "add", "take", "clear", "clear all"]), st.integers(0, 2), st.sampled_from(["+1", "heart"])
)  # fmt: skip
REACTIONS = st.lists(st.lists(REACTION, min_size=1, max_size=6), min_size=1, max_size=8)
HISTORY = st.lists(st.lists(STEP, min_size=1, max_size=5), min_size=1, max_size=12)


class Both:
    """A store in memory and one in PostgreSQL, with the same users and the same guild."""

    def __init__(self, portal: BlockingPortal, stores: tuple[Storage, ...]) -> None:
        self._portal = portal
        self._stores = stores

    def alike(self, *effects: Any) -> list[Any]:
        """Perform them at once, in order; every store must answer the same."""
        return self._portal.call(self._together, effects)

    def each(self, effect: Any) -> None:
        """Perform it in every store, whatever the answers, until none has more of it to do."""
        for store in self._stores:
            while self._portal.call(store.perform, effect):
                pass

    async def _together(self, effects: tuple[Any, ...]) -> list[Any]:
        here, there = [await asyncio.gather(*[_outcome(store, effect) for effect in effects]) for store in self._stores]
        assert here == there
        return here


@asynccontextmanager
async def opened(database_url: str) -> AsyncIterator[Storage]:
    async with anyio.create_task_group() as tasks:
        store = PostgresStorage(database_url, tasks, pool_size=4)
        await store.start()
        yield store
        await store.aclose()


async def _outcome(storage: Storage, effect: Any) -> Any:
    try:
        return await storage.perform(effect)
    except Refusal as refusal:
        return refusal.code


@pytest.fixture(scope="module")
def both(module_database: str) -> Iterator[Both]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(opened(module_database)) as store:
        stores = Both(portal, (MemoryStorage(), store))
        for user_id in USERS:
            stores.alike(
                InsertUser(user_id=user_id, username=user_id, username_key=user_id, password_hash="", now_ms=NOW)
            )
        stores.alike(InsertGuild(author=Author(USERS[0]), guild_id=GUILD, name="guild", now_ms=NOW))
        for user_id, role in zip(USERS[1:], ROLES[1:], strict=True):
            stores.alike(GrantGuildRole(guild_id=GUILD, user_id=user_id, role=role, now_ms=NOW))
        yield stores


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=HISTORY)
def test_a_history_ends_the_same_in_both_stores(both: Both, history: list[list[tuple[str, int, int, str]]]) -> None:
    channel_id = new_id()
    both.alike(InsertChannel(author=Author(USERS[0]), channel_id=channel_id, guild_id=GUILD, name="c", now_ms=NOW))
    done: list[AppendEvent] = []
    for moment, batch in enumerate(history):
        effects: list[AppendEvent] = []
        for kind, user, place, emoji in batch:
            effect = _effect(channel_id, done, kind, USERS[user], place, emoji, NOW + moment)
            if effect.event_id not in {other.event_id for other in effects}:
                effects.append(effect)
                done.append(effect)
        both.alike(*effects)
    for reader_id in USERS[:3]:
        both.alike(
            *[ReadMessages(channel_id=channel_id, reader_id=reader_id, limit=limit) for limit in (3, 50)],
            *[ReadMessages(channel_id=channel_id, reader_id=reader_id, limit=4, after=at) for at in (0, 5)],
            ReadMessages(channel_id=channel_id, reader_id=reader_id, limit=4, before=6),
            ReadMessages(channel_id=channel_id, reader_id=reader_id, limit=5, around=4),
            ListPins(channel_id=channel_id, reader_id=reader_id, limit=2),
            ListPins(channel_id=channel_id, reader_id=reader_id, limit=9, behind=(NOW, 3)),
        )
    both.alike(*[ListUnread(user_id=user_id) for user_id in USERS])
    _check_view(both, channel_id)
    for effect in done:
        both.alike(
            FindMessage(channel_id=channel_id, reader_id=USERS[0], event_id=effect.event_id),
            ReadVersions(channel_id=channel_id, reader_id=USERS[0], event_id=effect.event_id),
        )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=REACTIONS)
def test_reactions_end_the_same_whatever_is_cleared_between_them(
    both: Both, history: list[list[tuple[str, int, str]]]
) -> None:
    channel_id = new_id()
    both.alike(InsertChannel(author=Author(USERS[0]), channel_id=channel_id, guild_id=GUILD, name="c", now_ms=NOW))
    message = post(channel_id, USERS[0], "hello")
    both.alike(message)
    for batch in history:
        both.alike(*[_effect(channel_id, [message], kind, USERS[user], 0, emoji, NOW) for kind, user, emoji in batch])
        both.alike(*[FindMessage(channel_id=channel_id, reader_id=user, event_id=message.event_id) for user in USERS])
    _check_view(both, channel_id)
    for user in USERS[:3]:  # what is in no answer: the reactions that each user may still take back
        both.alike(
            *[changing(channel_id, user, React(message.event_id, emoji, adds=False)) for emoji in ("+1", "heart")]
        )


def _check_view(both: Both, channel_id: str) -> None:
    """The log folds to the reactions of the page."""
    events, page = both.alike(
        ReadEvents(log_id=channel_id, limit=200),
        ReadMessages(channel_id=channel_id, reader_id=USERS[0], limit=200),
    )
    view = ChannelView()
    for event in events:
        view.apply(event.sequence, event.wire)
    folded = {event_id: _counted(message.reactions) for event_id, message in view.messages.items()}
    assert folded == {message.state.event_id: counts(message.state) for message in page.messages}


def _counted(reactions: dict[str, set[str]]) -> tuple[tuple[str, int], ...]:
    return tuple((emoji, len(users)) for emoji, users in reactions.items())


def _effect(
    channel_id: str, done: list[AppendEvent], kind: str, user_id: str, place: int, emoji: str, now_ms: int
) -> AppendEvent:
    target = done[-1 - place % len(done)].event_id if done else new_event_id()
    match kind:
        case "reply":
            return post(channel_id, user_id, f"re {place}", reply_to=target)
        case "edit":
            return changing(channel_id, user_id, Edit(target, f"text {place}"), now_ms=now_ms)
        case "redact":
            return changing(channel_id, user_id, Redact(target, "why"), now_ms=now_ms)
        case "add" | "take":
            return changing(channel_id, user_id, React(target, emoji, adds=kind == "add"), now_ms=now_ms)
        case "clear" | "clear all":
            change = ClearReactions(target, emoji if kind == "clear" else None)
            return changing(channel_id, user_id, change, now_ms=now_ms)
        case "pin" | "unpin":
            return changing(channel_id, user_id, Pin(target, pins=kind == "pin"), now_ms=now_ms)
        case "again" if done:
            return done[-1 - place % len(done)]
    return post(channel_id, user_id, f"text {place}", nonce=f"nonce {place}" if place < 4 else None)


@pytest.mark.anyio
async def test_no_table_holds_the_text_of_a_redacted_message(database_url: str) -> None:
    texts = [f"{word}-should-be-gone" for word in ("first", "second", "third")]
    async with opened(database_url) as store:
        owner = await add_user(store)
        channel_id = await add_channel(store, await add_guild(store, owner), owner)
        event = await stored(store, post(channel_id, owner, texts[0], nonce="n"))
        for text in texts[1:]:
            await stored(store, changing(channel_id, owner, Edit(event.event_id, text)))
        dumped = await _dump(database_url)
        assert all(text.encode() in dumped for text in texts)
        await stored(store, changing(channel_id, owner, Redact(event.event_id, "why")))
    dumped = await _dump(database_url)
    assert event.event_id.encode() in dumped
    assert [text for text in texts if text.encode() in dumped] == []


async def _dump(database_url: str) -> bytes:
    """Every table's rows; bytea as it is, which text forms would write in hexadecimal."""
    connection = await asyncpg.connect(database_url)
    try:
        dumped = io.BytesIO()
        for row in await connection.fetch(
            "SELECT oid::regclass::text AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        ):
            await connection.copy_from_table(row["name"].strip('"'), output=dumped, format="binary")
        return dumped.getvalue()
    finally:
        await connection.close()

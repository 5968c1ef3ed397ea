"""Who is named as having reacted to a message, and that every reader finds their own (PROTOCOL 7.8.3)."""

from __future__ import annotations

from typing import NamedTuple

import anyio
import pytest

from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.limits import MAX_SHOWN_REACTORS
from openguild_proto.records import React, StoredEvent
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, add_channel, add_guild, add_user
from tests.support.messages import changing, counts, found, post, reacted, reactors, stored

pytestmark = pytest.mark.anyio


class Place(NamedTuple):
    """A channel and a message in it."""

    storage: Storage
    guild_id: str
    channel_id: str
    owner: str
    message: StoredEvent


@pytest.fixture
async def place(kept_storage: Storage) -> Place:
    owner = await add_user(kept_storage)
    guild = await add_guild(kept_storage, owner)
    channel_id = await add_channel(kept_storage, guild, owner)
    return Place(kept_storage, guild, channel_id, owner, await stored(kept_storage, post(channel_id, owner, "hello")))


async def test_those_who_reacted_first_are_named_and_every_reader_finds_their_own(place: Place) -> None:
    storage, channel_id, target = place.storage, place.channel_id, place.message.event_id
    users = await _members(place, MAX_SHOWN_REACTORS + 3)
    for user_id in users[:3]:
        await stored(storage, changing(channel_id, user_id, React(target, "+1", adds=True)))
    async with anyio.create_task_group() as tasks:  # in one batch
        for user_id in users[3:]:
            tasks.start_soon(stored, storage, changing(channel_id, user_id, React(target, "+1", adds=True)))
    for user_id, emoji in ((users[1], "heart"), (users[0], "heart"), (users[0], "\u2764"), (users[2], "!")):
        await stored(storage, changing(channel_id, user_id, React(target, emoji, adds=True)))
    for reader_id in ("", place.owner, *users):
        message = await found(storage, channel_id, target, reader_id)
        assert counts(message.state) == (("+1", len(users)), ("heart", 2), ("\u2764", 1), ("!", 1))
        assert reactors(message, reader_id) == (
            ("+1", tuple(users[:MAX_SHOWN_REACTORS])),
            ("heart", (users[1], users[0])),
            ("\u2764", (users[0],)),
            ("!", (users[2],)),
        )
        used = [
            emoji for emoji, of in (("heart", users[:2]), ("\u2764", users[:1]), ("!", users[2:3])) if reader_id in of
        ]
        assert reacted(message, reader_id) == (("+1", *used) if reader_id in users else ())


async def test_where_one_of_those_named_takes_it_back_others_are_named(place: Place) -> None:
    storage, channel_id, target = place.storage, place.channel_id, place.message.event_id
    users = await _members(place, MAX_SHOWN_REACTORS + 3)
    for user_id in users:
        await stored(storage, changing(channel_id, user_id, React(target, "+1", adds=True)))
    left = list(users)
    for gone in users[1:]:
        await stored(storage, changing(channel_id, gone, React(target, "+1", adds=False)))
        left.remove(gone)
        for reader_id in (users[0], users[-1], gone):
            message = await found(storage, channel_id, target, reader_id)
            assert counts(message.state) == (("+1", len(left)),)
            ((_, named),) = reactors(message, reader_id)
            assert len(named) == len(set(named)) == min(len(left), MAX_SHOWN_REACTORS)
            assert set(named) <= set(left)
            assert reacted(message, reader_id) == (("+1",) if reader_id in left else ())


async def _members(place: Place, count: int) -> list[str]:
    users = [await add_user(place.storage) for _ in range(count)]
    for user_id in users:
        await place.storage.perform(GrantGuildRole(guild_id=place.guild_id, user_id=user_id, role="member", now_ms=NOW))
    return users

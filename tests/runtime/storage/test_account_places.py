"""A user's guilds and where the logs stand that concern them, on both stores."""

from __future__ import annotations

import asyncio

import pytest

from openguild_proto.effects.guilds import ListGuilds
from openguild_proto.effects.logs import FindAccountMemberships, FindLogHead
from openguild_runtime.storage.base import Storage
from tests.support.deeds import add_guild, add_user, new_id

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(kept_storage: Storage) -> Storage:
    return kept_storage


async def test_it_is_what_the_single_effects_find(storage: Storage) -> None:
    user = await add_user(storage)
    guilds = [await add_guild(storage, user) for _ in range(3)]
    await add_guild(storage, await add_user(storage))  # not theirs
    found = await storage.perform(FindAccountMemberships(user_id=user))
    assert found is not None
    assert found.place == await storage.perform(FindLogHead(log_id=user))
    assert tuple(guild for guild, _ in found.guilds) == await storage.perform(ListGuilds(user_id=user))
    assert {guild.guild_id for guild, _ in found.guilds} == set(guilds)
    for guild, place in found.guilds:
        assert place == await storage.perform(FindLogHead(log_id=guild.guild_id))


async def test_a_user_without_guilds_has_a_place_and_nobody_has_none(storage: Storage) -> None:
    user = await add_user(storage)
    found = await storage.perform(FindAccountMemberships(user_id=user))
    assert found is not None
    assert found.guilds == ()
    assert await storage.perform(FindAccountMemberships(user_id=new_id())) is None


async def test_many_who_ask_at_once_get_their_own(storage: Storage) -> None:
    """More than there are connections, one of them twice, and one whom nobody knows."""
    users = [await add_user(storage) for _ in range(30)]
    owned = {user: [await add_guild(storage, user) for _ in range(number % 3)] for number, user in enumerate(users)}
    asked = [*users, users[2], new_id()]
    found = await asyncio.gather(*(storage.perform(FindAccountMemberships(user_id=user)) for user in asked))
    assert found[-1] is None
    for user, places in zip(asked[:-1], found, strict=False):
        assert places is not None
        assert places.place.log_id == user
        assert {guild.guild_id for guild, _ in places.guilds} == set(owned[user])

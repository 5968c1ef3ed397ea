"""Unread mentions are counted up to a bound, in both stores (PROTOCOL 7.10.2)."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from openguild_proto.effects.channels import ListUnread, MarkRead
from openguild_proto.effects.roles import GrantGuildRole
from openguild_proto.limits import MAX_COUNTED_MENTIONS
from openguild_proto.records import Author, Mentions
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, add_channel, add_guild, add_user
from tests.support.messages import post

pytestmark = pytest.mark.anyio


async def test_mentions_are_counted_up_to_the_bound(storage: Storage) -> None:
    owner, reader = await add_user(storage), await add_user(storage)
    guild = await add_guild(storage, owner)
    channel = await add_channel(storage, guild, owner)
    await storage.perform(GrantGuildRole(guild_id=guild, user_id=reader, role="member", now_ms=NOW))
    count = MAX_COUNTED_MENTIONS + 4
    posts = [
        replace(post(channel, owner, str(number)), mentions=Mentions(everyone=True)) for number in range(count - 2)
    ]
    posts += [replace(post(channel, owner, f"{number}!"), mentions=Mentions(users=(reader,))) for number in range(2)]
    await asyncio.gather(*map(storage.perform, posts))
    (state,) = await storage.perform(ListUnread(user_id=reader))
    assert (state.unread, state.mentions) == (count, MAX_COUNTED_MENTIONS)

    async def left(sequence: int) -> int:
        read = MarkRead(author=Author(reader), channel_id=channel, sequence=sequence, now_ms=NOW)
        return (await storage.perform(read)).mentions

    assert await left(3) == MAX_COUNTED_MENTIONS
    assert await left(5) == MAX_COUNTED_MENTIONS - 1
    assert await left(count) == 0

"""Texts that no message can contain, given to the Python client: over HTTP and over the gateway."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import anyio
import pytest

from openguild_runtime.client import ApiError, Client, Gateway, MessagePosted
from tests.support.chat import PASSWORD
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio
HALF = "half: \ud83d"


@pytest.fixture
async def alice(server: ServerProcess) -> AsyncIterator[Client]:
    async with Client(server.base_url) as client:
        name = f"client-{uuid.uuid4().hex[:12]}"
        await client.register(name, PASSWORD)
        await client.login(name, PASSWORD)
        yield client


async def refused(call: Awaitable[Any]) -> None:
    with pytest.raises(ApiError) as refusal:
        await call
    assert (refusal.value.status, refusal.value.code) == (400, "invalid_json")


async def all_refused(alice: Client, channel: str, message_id: str) -> None:
    await refused(alice.post(channel, HALF))
    await refused(alice.edit(channel, message_id, HALF))
    await refused(alice.redact(channel, message_id, HALF))
    await refused(alice.react(channel, message_id, "\ud83d"))
    await refused(alice.typing(channel, HALF))


async def next_posted(events: Gateway) -> MessagePosted:
    with anyio.fail_after(20):
        async for event in events:
            if isinstance(event, MessagePosted):
                return event
    raise AssertionError("the gateway ended")


async def test_half_an_emoji_is_refused_and_ends_nothing(alice: Client) -> None:
    guild = (await alice.create_guild("tea")).guild_id
    channel = (await alice.create_channel(guild, "general")).channel_id
    posted = await alice.post(channel, "over HTTP")
    await all_refused(alice, channel, posted.event_id)
    await refused(alice.create_guild(HALF))
    await refused(alice.search(HALF))
    async with alice.gateway(everything=False) as events:
        events.follow(f"channel:{channel}", tail=1)
        message = await next_posted(events)
        await all_refused(alice, channel, posted.event_id)
        await refused(message.reply(HALF))
        await refused(message.edit(HALF))
        await alice.post(channel, "whole: \N{THUMBS UP SIGN}")
        assert (await next_posted(events)).text == "whole: \N{THUMBS UP SIGN}"

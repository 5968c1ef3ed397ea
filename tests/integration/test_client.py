"""The anyio client against real servers: tokens, repeats, restarts, removals."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from openguild_proto.client import Disconnected, Opened
from openguild_proto.schemas.frames import ChannelCreated
from openguild_runtime.client import ApiError, Client, Notification, StreamEnded
from openguild_runtime.client.subscription import QUIET_SECS
from openguild_runtime.embedded import EmbeddedNats
from tests.support.chat import PASSWORD, Chat
from tests.support.clocks import Clocks
from tests.support.server import ServerProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def clocks() -> Clocks:
    """The clocks of the client."""
    return Clocks()


@pytest.fixture
async def client(server: ServerProcess, clocks: Clocks) -> AsyncIterator[Client]:
    async with Client(server.base_url, sources=clocks.sources) as made:
        yield made


async def registered(client: Client, chat: Chat) -> str:
    """Create an account and log in; return its name."""
    name = f"client-{uuid.uuid4().hex[:12]}"
    user_id = await client.register(name, PASSWORD)
    await client.login(name, PASSWORD)
    assert (await client.request("GET", "/users/me"))["user_id"] == user_id
    return name


async def channel_of(client: Client) -> tuple[str, str]:
    guild = (await client.request("POST", "/guilds", {"name": "g"}))["guild_id"]
    return guild, (await client.request("POST", f"/guilds/{guild}/channels", {"name": "c"}))["channel_id"]


async def test_log_in_post_and_follow(client: Client, chat: Chat) -> None:
    await registered(client, chat)
    _, channel = await channel_of(client)
    async with client.subscribe(channel) as events:
        first = await client.post(channel, "one", nonce="n1")
        assert await client.post(channel, "one", nonce="n1") == first, "the same nonce is the same post"
        await client.post(channel, "two")
        received = [await anext(events) for _ in range(2)]
    assert [(event.sequence, event.text, event.channel_id) for event in received] == [
        (1, "one", channel), (2, "two", channel),
    ]  # fmt: skip


async def test_who_joined_an_empty_channel_misses_nothing(client: Client, clocks: Clocks, chat: Chat) -> None:
    """More than the replay window is posted while the stream is cut, before any event arrived."""
    await registered(client, chat)
    _, channel = await channel_of(client)
    async with client.subscribe(channel) as events:
        assert isinstance(await events.next_event(), Opened)
        clocks.passed += QUIET_SECS
        async with anyio.create_task_group() as reading:
            reading.start_soon(events.next_event)
            await eventually(lambda: events.state.position == 0)
            reading.cancel_scope.cancel()
        assert events._transport is not None
        await events._transport.aclose()
        for number in range(60):
            await client.post(channel, str(number))
        with anyio.fail_after(20):
            assert [(await anext(events)).text for _ in range(60)] == [str(number) for number in range(60)]
        assert (events.state.gaps, events.state.repeats) == (0, 0)


async def test_a_session_is_refreshed_when_its_token_is_not_accepted(client: Client, chat: Chat) -> None:
    await registered(client, chat)
    assert client.session is not None
    before = client.session.refresh_token
    client.session.access_token = "not a token"
    _, channel = await channel_of(client)
    assert client.session.refresh_token != before
    client.session.access_token = "not a token either"
    async with client.subscribe(channel, since=0) as events:
        refused = await events.next_event()
        assert isinstance(refused, Disconnected)
        assert refused.needs_token
        assert isinstance(await events.next_event(), Opened)
    await client.logout()
    with pytest.raises(RuntimeError, match="log in"):
        await client.post(channel, "x")


async def test_refusals_are_typed(client: Client, chat: Chat) -> None:
    name = await registered(client, chat)
    with pytest.raises(ApiError) as refused:
        await client.register(name, PASSWORD)
    assert (refused.value.status, refused.value.code) == (409, "username_taken")
    with pytest.raises(ApiError) as wrong:
        await client.login(name, "another password")
    assert wrong.value.code == "invalid_credentials"
    with pytest.raises(ApiError) as unknown:
        await client.post("00000000-0000-4000-8000-000000000000", "x")
    assert unknown.value.status == 404
    with pytest.raises(StreamEnded) as ended:
        await anext(client.subscribe("00000000-0000-4000-8000-000000000000"))
    assert (ended.value.code, ended.value.error) == (404, "not_found")
    assert ended.value.reason.startswith("not_found: ")


async def test_who_is_removed_is_told_so(client: Client, chat: Chat, server: ServerProcess) -> None:
    owner = await anyio.to_thread.run_sync(chat.user)
    name = await registered(client, chat)
    guild = owner.guild()
    channel = owner.channel(guild)
    member = await client.request("POST", f"/invites/{owner.invite(guild)}/accept")
    assert member["user_id"]
    async with client.subscribe(channel) as events:
        assert isinstance(await events.next_event(), Opened)
        assert owner.request("DELETE", f"/guilds/{guild}/members/{member['user_id']}").status_code == 204
        with pytest.raises(StreamEnded) as ended:
            await events.next_event()
    assert ended.value.code == 4403, name


async def test_notifications(client: Client, chat: Chat) -> None:
    await registered(client, chat)
    heard: list[Notification] = []

    async def listen(started: anyio.Event) -> None:
        stream = client.notifications()
        started.set()
        async for notification in stream:
            heard.append(notification)
            if len(heard) == 1:
                return

    started = anyio.Event()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen, started)
            guild = (await client.request("POST", "/guilds", {"name": "g"}))["guild_id"]
            while not heard:
                await client.request("POST", f"/guilds/{guild}/channels", {"name": "c"})
    assert isinstance(heard[0], ChannelCreated)
    assert heard[0].event.name == "c"


async def test_it_moves_to_another_replica_and_misses_nothing(
    new_database: Callable[[], str], nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    url = new_database()
    first, second = (ServerProcess(tmp_path, DATABASE_URL=url, NATS__URL=nats_server.url) for _ in range(2))
    with first, second.start():
        async with Client((first.base_url, second.base_url), retry_secs=30) as client:
            await registered(client, first.chat())
            _, channel = await channel_of(client)
            async with client.subscribe(channel, since=0) as events:
                await client.post(channel, "on the first")
                assert (await anext(events)).text == "on the first"
                assert await anyio.to_thread.run_sync(first.stop) == 0
                await client.post(channel, "on the second")
                with anyio.fail_after(30):
                    assert (await anext(events)).text == "on the second"
            assert (events.state.gaps, events.state.repeats) == (0, 0)

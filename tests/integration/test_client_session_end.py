"""A session ends while it is in use: the gateway, commands and streams end with 401, and nothing is retried forever."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import anyio
import pytest

from openguild_runtime.client import (
    ApiError,
    Client,
    Connected,
    Gateway,
    Interrupted,
    LogFollowed,
    MessagePosted,
    OutcomeUnknown,
    Unauthorized,
)
from tests.support.chat import PASSWORD
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio


@pytest.fixture
async def alice(server: ServerProcess) -> AsyncIterator[Client]:
    """Yield a client that is logged in."""
    async with Client(server.base_url, retry_secs=20) as client:
        name = f"client-{uuid.uuid4().hex[:12]}"
        await client.register(name, PASSWORD)
        await client.login(name, PASSWORD)
        yield client


async def heard(events: Gateway, kind: type[object], log: str | None = None) -> None:
    """Read events up to one of this type."""
    with anyio.fail_after(30):
        async for event in events:
            if isinstance(event, kind) and log in (None, getattr(event, "log", None)):
                return
    raise AssertionError("the gateway ended")


async def channel_of(client: Client) -> str:
    return (await client.create_channel((await client.create_guild("tea")).guild_id, "general")).channel_id


async def test_a_logout_ends_the_gateway_with_401(alice: Client) -> None:
    async with alice.gateway() as events:
        await heard(events, Connected)
        await alice.logout()
        with pytest.raises(Unauthorized) as ended:
            await heard(events, MessagePosted)
    assert (ended.value.status, ended.value.code) == (401, "unauthorized")


async def test_a_login_on_the_same_device_ends_the_gateway_with_401(alice: Client, server: ServerProcess) -> None:
    name = (await alice.request("GET", "/users/me"))["username"]
    async with Client(server.base_url, device_id=alice.device_id) as other, alice.gateway() as events:
        await heard(events, Connected)
        await other.login(name, PASSWORD)
        with pytest.raises(Unauthorized):
            await heard(events, MessagePosted)
        with pytest.raises(Unauthorized):
            await alice.post(str(uuid.uuid4()), "hello")


async def test_a_session_revoked_while_the_gateway_is_away_ends_it_with_401(
    alice: Client, server: ServerProcess
) -> None:
    name, proxy = (await alice.request("GET", "/users/me"))["username"], Proxy(server.port)
    async with anyio.create_task_group() as tasks, Client(server.base_url, device_id=alice.device_id) as other:
        await proxy.start(tasks)
        async with (
            Client(f"http://127.0.0.1:{proxy.port}", session=alice.session) as client,
            client.gateway() as events,
        ):
            await heard(events, Connected)
            proxy.cut()
            await heard(events, Interrupted)
            await other.login(name, PASSWORD)
            proxy.heal()
            with pytest.raises(Unauthorized):
                await heard(events, Connected)
        tasks.cancel_scope.cancel()


async def test_posts_during_a_logout_are_refused_or_unknown(alice: Client) -> None:
    """Some arrive before the logout, some after the end of the session, some after the end of the gateway."""
    channel, ends = await channel_of(alice), list[str]()

    async def post_on() -> None:
        try:
            for number in range(1_000):
                await alice.post(channel, str(number))
        except (ApiError, OutcomeUnknown, RuntimeError) as end:
            ends.append(type(end).__name__)

    async with alice.gateway() as events:
        await heard(events, LogFollowed, f"channel:{channel}")
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for _ in range(8):
                    tasks.start_soon(post_on)
                await heard(events, MessagePosted)
                await alice.logout()
        with pytest.raises(Unauthorized):
            await heard(events, Connected)
    assert len(ends) == 8


async def test_a_logout_ends_a_subscription_with_401(alice: Client) -> None:
    channel = await channel_of(alice)
    async with alice.subscribe(channel, since=0) as events:
        await alice.post(channel, "hello")
        assert (await anext(events)).text == "hello"
        await alice.logout()
        with pytest.raises(Unauthorized), anyio.fail_after(30):
            await anext(events)


@pytest.mark.parametrize("end", ["logout", "login", "dropped"])
async def test_read_positions_are_not_sent_for_the_next_user(alice: Client, server: ServerProcess, end: str) -> None:
    channel, name = await channel_of(alice), f"client-{uuid.uuid4().hex[:12]}"
    [guild] = [guild async for guild in alice.guilds()]
    invite = await alice.create_invite(guild.guild_id)
    async with Client(server.base_url) as bob:
        await bob.register(name, PASSWORD)
        await bob.login(name, PASSWORD, device_id="another")
        await bob.accept_invite(invite.code)
        for number in range(5):
            await alice.post(channel, str(number))
        alice.note_read(channel, 5)
        if end == "logout":
            await alice.logout()
        elif end == "dropped":  # as a program does after a 401
            alice.session = None
        await alice.login(name, PASSWORD)
        async with alice.gateway():
            assert (await alice.mark_read(channel, 1)).last_read_sequence == 1
        await bob.logout()

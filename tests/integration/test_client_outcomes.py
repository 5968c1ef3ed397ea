"""After a lost answer the client reports the outcome as unknown, with the key for a retry, and never as refused."""

from __future__ import annotations

import uuid
from contextlib import suppress

import anyio
import pytest
from anyio.abc import SocketStream

from openguild_runtime.client import (
    Client,
    Event,
    Gateway,
    Interrupted,
    LogFollowed,
    MessagePosted,
    OutcomeUnknown,
)
from tests.support.chat import PASSWORD
from tests.support.proxy import GONE, Proxy
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio


class OneWay(Proxy):
    """After `black_hole` the client's requests arrive, but no answers do."""

    async def _both(self, near: SocketStream, far: SocketStream) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._say, near, far, tasks.cancel_scope)
            tasks.start_soon(self._pass, far, near, tasks.cancel_scope)

    async def _say(self, near: SocketStream, far: SocketStream, both: anyio.CancelScope) -> None:
        with suppress(*GONE):
            async for data in near:
                await far.send(data)
        both.cancel()


async def entered(client: Client) -> None:
    """Log in with a new account."""
    name = f"client-{uuid.uuid4().hex[:12]}"
    await client.register(name, PASSWORD)
    await client.login(name, PASSWORD)


async def heard(events: Gateway, kind: type[Event], **members: object) -> None:
    """Read events up to one of this type with these members."""
    async for event in events:
        if isinstance(event, kind) and all(getattr(event, name) == value for name, value in members.items()):
            return


async def test_a_post_that_may_be_stored_is_not_said_to_be_refused(server: ServerProcess) -> None:
    proxy = OneWay(server.port)
    unknown: list[OutcomeUnknown] = []
    async with anyio.create_task_group() as tasks, Client(server.base_url) as alice:
        await proxy.start(tasks)
        async with Client(f"http://127.0.0.1:{proxy.port}", retry_secs=40) as bob:
            for client in (alice, bob):
                await entered(client)
            guild = (await alice.create_guild("tea")).guild_id
            channel = (await alice.create_channel(guild, "general")).channel_id
            await bob.accept_invite((await alice.create_invite(guild)).code)
            bob_id = (await bob.request("GET", "/users/me"))["user_id"]

            async def post() -> None:
                with pytest.raises(OutcomeUnknown) as end:
                    await bob.post(channel, "perhaps")
                unknown.append(end.value)

            with anyio.fail_after(60):
                async with bob.gateway() as bobs, alice.gateway() as alices:
                    await heard(bobs, LogFollowed, log=f"channel:{channel}")
                    await heard(alices, LogFollowed, log=f"channel:{channel}")
                    proxy.black_hole()
                    async with anyio.create_task_group() as posting:
                        posting.start_soon(post)
                        await heard(alices, MessagePosted)
                        await alice.send("DELETE", f"/guilds/{guild}/members/{bob_id}")
                        proxy.cut()
                        proxy.heal()
            assert [event.text async for event in alice.history(channel)] == ["perhaps"]
            again = await alice.request("GET", f"/channels/{channel}/events")
            assert again[0]["event"]["content"]["nonce"] == unknown[0].nonce
        tasks.cancel_scope.cancel()


async def test_what_could_not_be_sent_in_time_is_not_sent_later(server: ServerProcess) -> None:
    proxy = Proxy(server.port)
    async with anyio.create_task_group() as tasks:
        await proxy.start(tasks)
        async with Client(f"http://127.0.0.1:{proxy.port}", retry_secs=1) as bob:
            await entered(bob)
            channel = (await bob.create_channel((await bob.create_guild("tea")).guild_id, "general")).channel_id
            with anyio.fail_after(60):
                async with bob.gateway() as events:
                    await heard(events, LogFollowed, log=f"channel:{channel}")
                    proxy.cut()
                    await heard(events, Interrupted)
                    with pytest.raises(OutcomeUnknown, match="no connection in time") as end:
                        await bob.post(channel, "too late")
                    proxy.heal()
                    await heard(events, LogFollowed, log=f"channel:{channel}")
                    await bob.post(channel, "in time")
                    assert [event.text async for event in bob.history(channel)] == ["in time"]
                    await bob.post(channel, "too late", nonce=end.value.nonce)
                    assert [event.text async for event in bob.history(channel)] == ["in time", "too late"]
        tasks.cancel_scope.cancel()

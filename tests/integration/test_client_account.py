"""The logs that a client follows for its user, while another device joins guilds at the worst moments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

from openguild_proto.client import AccountLogs
from openguild_proto.gateway.client_logs import FollowedLogs
from openguild_proto.gateway.frames import Ready
from openguild_runtime.client import Channel, Client, Gateway, LogFollowed, MessagePosted
from tests.support.chat import PASSWORD, User
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio


class Device:
    """Another device of the user; it joins a guild with one channel while the client waits."""

    def __init__(self, server: ServerProcess) -> None:
        chat = server.chat()
        owner, self._user = chat.user(), chat.user(device="another")
        self.name = self._user.name
        self.guild = owner.guild()
        self.channel = owner.channel(self.guild)
        self._invite = owner.invite(self.guild)
        self._owner: User = owner

    def join(self) -> None:
        self._user.join(self._invite)

    def make_channel(self) -> list[Channel]:
        self._owner.say(self._owner.channel(self.guild, "news"), "the first")
        return msgspec.convert(self._owner.get(f"/guilds/{self.guild}/channels").json(), list[Channel])


@pytest.fixture
async def device(server: ServerProcess) -> Device:
    return await anyio.to_thread.run_sync(Device, server)


async def followed(events: Gateway, log: str) -> None:
    with anyio.fail_after(30):
        async for event in events:
            if isinstance(event, LogFollowed) and event.log == log:
                return


async def test_a_guild_joined_before_the_own_log_is_followed(
    device: Device, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = AccountLogs.opened

    def join_first(logs: AccountLogs, ready: Ready) -> None:
        device.join()
        opened(logs, ready)

    monkeypatch.setattr(AccountLogs, "opened", join_first)
    async with Client(server.base_url) as client:
        await client.login(device.name, PASSWORD)
        async with client.gateway() as events:
            await followed(events, f"channel:{device.channel}")


async def test_a_channel_made_while_the_channels_are_listed_misses_no_message(
    device: Device, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server reads the head that it names before the list, and the answer may arrive before the event."""
    channels_at = Client.channels_at

    async def make_one_between(client: Client, guild_id: str) -> tuple[int, list[Channel]]:
        head, _ = await channels_at(client, guild_id)
        return head, device.make_channel()

    monkeypatch.setattr(Client, "channels_at", make_one_between)
    device.join()
    async with Client(server.base_url) as client:
        await client.login(device.name, PASSWORD)
        async with client.gateway() as events:
            with anyio.fail_after(30):
                async for event in events:
                    if isinstance(event, MessagePosted):
                        break
            assert event.text == "the first"


async def test_a_guild_joined_while_the_own_log_begins_anew(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ServerProcess(tmp_path, DATABASE_URL=database_url)
    with server.start():
        device = await anyio.to_thread.run_sync(Device, server)
        gone = FollowedLogs.gone

        def join_first(logs: FollowedLogs, name: str, code: Any) -> bool:
            device.join()
            return gone(logs, name, code)

        monkeypatch.setattr(FollowedLogs, "gone", join_first)
        async with Client(server.base_url) as client:
            await client.login(device.name, PASSWORD)
            async with client.gateway() as events:
                await followed(events, f"user:{client.user_id}")
                await anyio.to_thread.run_sync(server.run_command, "migrate", "--new-epoch")
                await followed(events, f"channel:{device.channel}")

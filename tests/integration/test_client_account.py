"""What a client follows for its user, while guilds are joined on another device at the worst moments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from openguild_proto.client import AccountLogs
from openguild_proto.gateway.client_logs import FollowedLogs
from openguild_proto.gateway.frames import Ready
from openguild_runtime.client import Client, Gateway, LogFollowed
from tests.support.chat import PASSWORD, User
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio


class Device:
    """Another device of the user; it joins a guild with one channel, while the client waits."""

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

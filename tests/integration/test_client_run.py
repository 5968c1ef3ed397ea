"""`Client.run` and `listen`: when state is saved, replies that are stored once, and failures that end in one line."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import anyio
import pytest

from openguild_runtime.client import Client, ClientClosed, LogFollowed, MessagePosted
from tests.support.chat import PASSWORD, Chat
from tests.support.server import ServerProcess
from tests.support.waiting import eventually, free_port


@pytest.mark.anyio
async def test_a_position_is_saved_after_its_handler_though_nothing_follows(
    server: ServerProcess, tmp_path: Path
) -> None:
    file, name = tmp_path / "bot.json", f"client-{uuid.uuid4().hex[:12]}"
    texts: list[str] = []
    async with Client(server.base_url, session_file=file) as client, anyio.create_task_group() as tasks:
        await client.register(name, PASSWORD)
        await client.login(name, PASSWORD)
        channel = (await client.create_channel((await client.create_guild("tea")).guild_id, "general")).channel_id
        followed = anyio.Event()

        @client.on(LogFollowed)
        async def begins(event: LogFollowed) -> None:
            if event.log == f"channel:{channel}":
                followed.set()

        @client.on(MessagePosted)
        async def heard(message: MessagePosted) -> None:
            texts.append(message.text)
            if message.text == "ping":
                for text in ("one", "two", "one", "two"):
                    await message.reply(text)
                await message.edit("pong")
                await message.edit("ping")
                await message.edit("pong")

        tasks.start_soon(client.listen)
        await followed.wait()
        ping = await client.post(channel, "ping")
        await eventually(lambda: len(texts) == 3)
        last = [line.sequence for line in await client.events(channel)][-1]
        await eventually(lambda: json.loads(file.read_text())["positions"].get(f"channel:{channel}") == [1, last])
        versions = await client.versions(channel, ping.event_id)
        tasks.cancel_scope.cancel()
    assert texts == ["ping", "one", "two"]
    assert [version.content for version in versions] == ["ping", "pong", "ping", "pong"]


def test_a_wrong_password_or_invite_ends_it_in_one_line(server: ServerProcess, chat: Chat) -> None:
    name = chat.user().name
    with pytest.raises(SystemExit, match=f"cannot log in as '{name}': 401 invalid_credentials"):
        Client(server.base_url).run(name, "wrong horse battery")
    with pytest.raises(SystemExit, match="cannot join by the invite 'nothing-here': 404 not_found"):
        Client(server.base_url).run(name, PASSWORD, invites=["nothing-here"])


@pytest.mark.anyio
async def test_a_bot_that_cannot_keep_its_session_does_not_start(
    server: ServerProcess, chat: Chat, tmp_path: Path
) -> None:
    name, folder = chat.user().name, tmp_path / "bots"
    file = folder / "bot.json"
    async with Client(server.base_url, session_file=file) as first:
        with pytest.raises(OSError, match=r"No such file or directory: '.*bot\.json'"):
            await first.enter(name, PASSWORD)
        folder.mkdir()
        await first.enter(name, PASSWORD)
    async with Client(server.base_url, session_file=file) as second:
        folder.rename(tmp_path / "moved")
        with pytest.raises(OSError, match=r"No such file or directory: '.*bot\.json'"):
            await second.enter(name, PASSWORD)


@pytest.mark.anyio
async def test_a_bot_can_end_itself_in_a_handler(server: ServerProcess, chat: Chat, tmp_path: Path) -> None:
    file, texts = tmp_path / "bot.json", list[str]()
    client = Client(server.base_url, session_file=file)
    await client.enter(chat.user().name, PASSWORD)
    channel = (await client.create_channel((await client.create_guild("tea")).guild_id, "general")).channel_id

    @client.on(LogFollowed)
    async def begins(event: LogFollowed) -> None:
        if event.log == f"channel:{channel}":
            for text in ("!stop", "later"):
                await client.post(channel, text)

    @client.on(MessagePosted)
    async def stop(message: MessagePosted) -> None:
        texts.append(message.text)
        await client.aclose()
        with pytest.raises(ClientClosed):
            await message.reply("goodbye")

    with anyio.fail_after(20):
        await client.listen()
    assert texts == ["!stop"]
    assert json.loads(file.read_text())["positions"][f"channel:{channel}"] == [1, 1]


@pytest.mark.anyio
async def test_a_bot_in_too_many_channels_is_warned_once(
    server: ServerProcess, chat: Chat, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openguild_proto.gateway.client_logs.MAX_GATEWAY_LOGS", 3)
    async with Client(server.base_url) as client:
        await client.enter(chat.user().name, PASSWORD)
        guild = (await client.create_guild("tea")).guild_id
        made = {f"channel:{(await client.create_channel(guild, name)).channel_id}" for name in ("a", "b", "c")}
        async with client.gateway():
            await eventually(lambda: bool(caplog.messages))
    [line] = caplog.messages
    assert line.startswith("too many logs: following ")
    assert any(log in line for log in made)


def test_a_port_without_tls_ends_it_in_one_line(server: ServerProcess) -> None:
    with pytest.raises(SystemExit, match=r"cannot log in as 'bot': .* does not speak TLS"):
        Client(server.base_url.replace("http://", "https://")).run("bot", PASSWORD)


def test_a_server_that_is_down_is_named(caplog: pytest.LogCaptureFixture) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(SystemExit, match="cannot log in as 'bot'"):
        Client(url, retry_secs=0.5).run("bot", PASSWORD)
    [record] = caplog.records
    assert record.getMessage().startswith(f"cannot reach {url} (")
    assert ", retrying until " in record.getMessage()

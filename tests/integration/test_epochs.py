"""A database restored to an earlier state, seen by clients that were connected before (PROTOCOL 7.2, 7.3)."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import anyio
import anyio.to_thread
import asyncpg
import pytest
from websockets.exceptions import InvalidStatus

from openguild_runtime.client import Client, StreamEnded
from tests.support.chat import PASSWORD, receive, texts
from tests.support.server import ServerProcess


async def goes_back(url: str, channel: str, head: int) -> None:
    """Roll one channel back, as a restored backup does."""
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        await connection.execute("DELETE FROM log_events WHERE log_id = $1 AND sequence > $2", channel, head)
        await connection.execute("UPDATE logs SET head_sequence = $2 WHERE log_id = $1", channel, head)
    await connection.close()


def test_a_restored_log_that_outgrew_a_client_is_another_log(tmp_path: Path, database_url: str) -> None:
    server = ServerProcess(tmp_path, DATABASE_URL=database_url)
    with server.start():
        alice = server.chat().user()
        guild = alice.guild()
        with alice.notifications() as notifications:
            channel = alice.channel(guild)
            (created,) = receive(notifications, 1)
        (listed,) = alice.ok(alice.get(f"/guilds/{guild}/channels"))
        assert created["event"] == listed
        for number in range(1, 11):
            alice.say(channel, f"old {number}")
        with alice.stream(channel, since=8) as stream:
            assert stream.response is not None
            epoch = stream.response.headers["X-OpenGuild-Epoch"]
            assert texts(receive(stream, 2)) == ["old 9", "old 10"]
        assert epoch == str(listed["epoch"]) == alice.get(f"/channels/{channel}/events").headers["x-openguild-epoch"]
        with alice.stream(channel, since=9, epoch=epoch) as stream:
            assert texts(receive(stream, 1)) == ["old 10"]
    anyio.run(goes_back, database_url, channel, 7)
    assert server.run_command("migrate", "--new-epoch").returncode == 0
    with server.start():
        alice = server.chat().login(alice.name)
        for number in range(8, 14):
            alice.say(channel, f"new {number}")
        with pytest.raises(InvalidStatus) as refused:
            alice.stream(channel, since=10, epoch=epoch)
        assert refused.value.response.status_code == 400
        assert json.loads(refused.value.response.body or b"")["error"] == "invalid_since"
        answer = alice.get(f"/channels/{channel}/events", params={"since": 10, "epoch": epoch})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_since")
        now = alice.ok(alice.get(f"/channels/{channel}"))["epoch"]
        assert str(now) != epoch
        with alice.stream(channel, since=7, epoch=now) as stream:
            assert texts(receive(stream, 6)) == [f"new {number}" for number in range(8, 14)]
        with alice.stream(channel, since=10) as stream:  # a client that does not know epochs
            assert texts(receive(stream, 3)) == [f"new {number}" for number in range(11, 14)]


@pytest.mark.anyio
async def test_the_client_is_told_and_misses_nothing_silently(tmp_path: Path, database_url: str) -> None:
    server = ServerProcess(tmp_path, DATABASE_URL=database_url)
    await anyio.to_thread.run_sync(server.start)
    try:
        async with Client(server.base_url, retry_secs=30) as client:
            name = f"client-{uuid.uuid4().hex[:12]}"
            await client.register(name, PASSWORD)
            await client.login(name, PASSWORD)
            channel = (await client.create_channel((await client.create_guild("g")).guild_id, "c")).channel_id
            async with client.subscribe(channel, since=0) as events:
                for number in range(1, 11):
                    await client.post(channel, f"old {number}")
                assert [(await anext(events)).sequence for _ in range(10)] == list(range(1, 11))
                await anyio.to_thread.run_sync(server.stop)
                await goes_back(database_url, channel, 7)
                await anyio.to_thread.run_sync(server.run_command, "migrate", "--new-epoch")
                await anyio.to_thread.run_sync(server.start)
                for number in range(8, 14):
                    await client.post(channel, f"new {number}")
                with pytest.raises(StreamEnded) as ended, anyio.fail_after(30):
                    await anext(events)
                assert ended.value.code == 400
                assert ended.value.error == "invalid_since"
            async with client.subscribe(channel, since=7) as events:
                assert (await anext(events)).text == "new 8"
                epoch = events.state.epoch
            async with client.subscribe(channel, 8, epoch) as events:
                assert (await anext(events)).text == "new 9"
    finally:
        await anyio.to_thread.run_sync(server.stop)

"""Two deployments share a nats-server and, by mistake, a server_name: each hears only replicas with its own database."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest

from openguild_runtime.embedded import EmbeddedNats
from tests.conftest import run_apart
from tests.support.chat import User, receive, texts
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

GUILDS = 10
LINE = "replicas of another database use this server_name on this NATS"


def copied(url: str) -> str:
    """Copy the database within the cluster, as for staging: the ids and the lineage stay the same."""
    base, _, name = url.rpartition("/")

    async def copy() -> None:
        connection = await asyncpg.connect(f"{base}/postgres")
        await connection.execute(f'CREATE DATABASE "{name}_copy" TEMPLATE "{name}"')
        await connection.close()

    run_apart(copy)
    return f"{base}/{name}_copy"


@pytest.fixture
def original(new_database: Callable[[], str]) -> str:
    return new_database()


def test_a_copy_beside_its_original_is_another_deployment(
    original: str, nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    """Nothing reaches the other deployment, even in a channel with the same id; each of them logs one line about it."""

    def deployment(url: str) -> ServerProcess:
        return ServerProcess(tmp_path, DATABASE_URL=url, NATS__URL=nats_server.url, SERVER_NAME="two-deployments.test")

    first = deployment(original)
    with first.start():
        alice = first.chat().user()
        channel = alice.channel(alice.guild())
        alice.say(channel, "in both")
        assert first.stop() == 0
    copy = copied(original)
    with ExitStack() as running:
        first, sibling, other = (running.enter_context(deployment(url).start()) for url in (original, original, copy))
        here, beside, there = (
            User(each.chat(), alice.name, alice.token, alice.user_id, "") for each in (first, sibling, other)
        )
        epoch = here.ok(here.get(f"/channels/{channel}"))["epoch"]
        with here.stream(channel, since=1) as stream, there.stream(channel, since=1) as foreign:
            for number in range(GUILDS):  # control records, which follow those that the first deployment has
                there.guild(f"guild {number}")
            there.say(channel, "there")
            beside.say(channel, "here")
            assert texts(receive(stream, 1)) == ["here"]
            assert texts(receive(foreign, 1)) == ["there"]
            servers = (first, sibling, other)
            wait_until(lambda: all(each.metric("openguild_nats_other_databases") == 1 for each in servers), secs=60)
            beside.guild()
            beside.say(channel, "on")
            assert texts(receive(stream, 1)) == ["on"]
        assert [each.get("/ready")["status"] for each in servers] == ["ready"] * 3
        with here.stream(channel, since=2, epoch=epoch) as stream:
            assert [frame["sequence"] for frame in receive(stream, 1)] == [3]
        for each in servers:
            assert sum(LINE in line["message"] for line in each.records()) == 1
            assert [line["message"] for line in each.records() if line["level"] == "ERROR"] == []

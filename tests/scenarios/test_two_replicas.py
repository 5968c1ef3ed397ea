"""Two real replicas on one PostgreSQL and one NATS: every subscriber gets every event, in order, once (PROTOCOL 8.3.1, 10.1)."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest
from websockets.asyncio.client import connect

from openguild_runtime.embedded import EmbeddedNats
from tests.support.chat import User
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE_SECS, wait_until

SUBSCRIBERS = 50  # per replica
POSTS = 1_000
POSTERS = 8


@pytest.fixture
def replicas(new_database: Callable[[], str], nats_server: EmbeddedNats, tmp_path: Path):
    url = new_database()
    settings = {"WEBSOCKET__MAX_CONNECTIONS_PER_USER": 1_000, "MESSAGING__QUEUE_CAPACITY": 2_048}
    servers = [ServerProcess(tmp_path, DATABASE_URL=url, NATS__URL=nats_server.url, **settings) for _ in range(2)]
    with servers[0], servers[1]:
        yield servers
        for server in servers:
            assert server.stop() == 0


async def subscriber(url: str, headers: dict[str, str], ready: anyio.abc.ObjectSendStream[None]) -> None:
    """Check every frame on arrival, up to the last one."""
    async with connect(url, additional_headers=headers, compression=None, proxy=None, max_queue=None) as stream:
        await ready.send(None)
        for expected in range(1, POSTS + 1):
            frame = json.loads(await stream.recv())
            assert frame["sequence"] == expected


async def post_all(replicas: list[ServerProcess], alice: User, channel: str) -> None:
    """Post to either replica, several posts at a time."""
    waiting = iter(range(POSTS))

    async def poster(client: httpx.AsyncClient, server: ServerProcess) -> None:
        for number in waiting:
            answer = await client.post(
                f"{server.base_url}/channels/{channel}/messages", json={"content": f"m{number}"}, headers=alice.auth
            )
            assert answer.status_code == 200, answer.text

    async with (
        httpx.AsyncClient(trust_env=False, verify=False, timeout=30) as client,
        anyio.create_task_group() as tasks,
    ):
        for number in range(POSTERS):
            tasks.start_soon(poster, client, replicas[number % 2])


@pytest.mark.anyio
async def test_every_subscriber_of_both_replicas_gets_every_event_once(replicas: list[ServerProcess]) -> None:
    alice = await anyio.to_thread.run_sync(replicas[0].chat().user)
    channel = alice.channel(alice.guild())
    send, ready = anyio.create_memory_object_stream[None](2 * SUBSCRIBERS)
    with anyio.fail_after(240):
        async with send, ready, anyio.create_task_group() as streams:
            for number in range(2 * SUBSCRIBERS):
                url = f"ws://127.0.0.1:{replicas[number % 2].port}/channels/{channel}/ws?since=0"
                streams.start_soon(subscriber, url, alice.auth, send)
            for _ in range(2 * SUBSCRIBERS):
                await ready.receive()
            await post_all(replicas, alice, channel)
    for server in replicas:
        assert server.metric("openguild_websocket_lag_closes_total") == 0
        assert server.metric("openguild_messaging_events_total", outcome="delivered") == POSTS


def post_at_once(ports: list[int], path: str, token: str) -> None:
    """Post once on each of several connections, all before the first answer is read."""
    body = json.dumps({"content": "x" * 1_500}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    request = head.encode() + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body
    with ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.create_connection(("127.0.0.1", port))) for port in ports]
        for each in sockets:
            each.sendall(request)
        for each in sockets:
            assert each.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"


@pytest.mark.anyio
async def test_a_burst_reaches_who_keeps_up_whole(
    new_database: Callable[[], str], nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    """The burst has more events than a ring holds and more bytes than one send takes, and nothing follows it."""
    url, count = new_database(), 300
    servers = [ServerProcess(tmp_path, DATABASE_URL=url, NATS__URL=nats_server.url) for _ in range(2)]
    with servers[0], servers[1]:
        alice = await anyio.to_thread.run_sync(servers[0].chat().user)
        channel = alice.channel(alice.guild())
        targets = [f"127.0.0.1:{server.port}/channels/{channel}" for server in servers]
        got: list[list[int]] = [[] for _ in targets]

        async def read(target: str, sequences: list[int]) -> None:
            address = f"ws://{target}/ws?since=0"
            async with connect(
                address, additional_headers=alice.auth, compression=None, proxy=None, max_queue=None
            ) as stream:
                opened.release()
                while len(sequences) < count:
                    sequences.append(json.loads(await stream.recv())["sequence"])

        opened = anyio.Semaphore(0)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for target, sequences in zip(targets, got, strict=True):
                    tasks.start_soon(read, target, sequences)
                    await opened.acquire()
                ports = [servers[number % 2].port for number in range(count)]
                await anyio.to_thread.run_sync(post_at_once, ports, f"/channels/{channel}/messages", alice.token)
        assert got == [list(range(1, count + 1))] * 2


def test_a_guild_made_on_one_replica_is_served_by_the_other(replicas: list[ServerProcess]) -> None:
    here, there = replicas[0].chat(), replicas[1].chat()
    alice, bob = here.user(), there.user()
    guild = alice.guild()
    bob.join(alice.invite(guild))
    with bob.notifications() as stream:
        channel = alice.channel(guild, "far away")
        assert json.loads(stream.recv(timeout=PATIENCE_SECS))["event"]["channel_id"] == channel
        alice.say(channel, "hello")
        assert json.loads(stream.recv(timeout=PATIENCE_SECS))["kind"] == "channel_message"


def test_password_guesses_are_counted_for_all_replicas_together(
    new_database: Callable[[], str], nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    url = new_database()
    limits = {"SESSION__MAX_LOGINS_PER_ACCOUNT_PER_WINDOW": 4}
    servers = [ServerProcess(tmp_path, DATABASE_URL=url, NATS__URL=nats_server.url, **limits) for _ in range(2)]
    with servers[0], servers[1]:
        name = servers[0].chat().user().name  # registering and logging in count as two attempts
        body = {"identifier": name, "secret": "a guess at it", "device": {"device_id": "x"}}
        answers = [
            httpx.post(f"{servers[number % 2].base_url}/sessions/login", json=body, trust_env=False, verify=False)
            for number in range(8)
        ]
    assert [answer.status_code for answer in answers] == [401] * 2 + [429] * 6
    assert all(1 <= int(answer.headers["retry-after"]) <= 62 for answer in answers[2:])


def test_messages_are_limited_on_all_replicas_together(
    new_database: Callable[[], str], nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    url = new_database()
    limits = {"MESSAGING__MAX_MESSAGES_PER_USER_PER_WINDOW": 60}
    servers = [ServerProcess(tmp_path, DATABASE_URL=url, NATS__URL=nats_server.url, **limits) for _ in range(2)]
    with servers[0], servers[1]:
        alice = servers[0].chat().user()
        channel = alice.channel(alice.guild())
        for number in range(60):
            alice.say(channel, str(number))
        elsewhere = User(servers[1].chat(), alice.name, alice.token, "", "")
        path = f"/channels/{channel}/messages"
        wait_until(lambda: elsewhere.post(path, {"content": "x"}).status_code == 429, what="the other replica's word")
        assert alice.post(path, {"content": "x"}).status_code == 429
        assert len(alice.history(channel, limit=200)) < 100, "a quarter of a second's worth too much, not twice"

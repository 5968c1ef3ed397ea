"""Gateway sockets with slow readers and rolling restarts: every event in order, once (PROTOCOL 15.5, 15.7)."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import anyio
import httpx
import pytest
from websockets.sync.client import connect

from openguild_proto.gateway.client_events import Opened
from openguild_proto.gateway.encoding import Encoding
from openguild_runtime.embedded import EmbeddedNats
from tests.support.chat import User
from tests.support.gateway_client import DrivenClient
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE_SECS, eventually, wait_until

POSTS = 1_500
MANY = {"MESSAGING__MAX_MESSAGES_PER_USER_PER_WINDOW": 100_000, "MESSAGING__MAX_MESSAGES_PER_IP_PER_WINDOW": 100_000}


async def post_all(urls: list[str], user: User, channel: str, count: int, posters: int = 8) -> None:
    """Post, retrying each post with its key until a server accepts it."""
    numbers = iter(range(count))

    async def poster(client: httpx.AsyncClient) -> None:
        for number in numbers:
            body = {"content": f"{number} {'x' * 700}", "nonce": f"n{number}"}
            for turn in range(number, number + 400):
                try:
                    url = f"{urls[turn % len(urls)]}/channels/{channel}/messages"
                    if (await client.post(url, json=body, headers=user.auth)).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await anyio.sleep(0.05)  # between two attempts, which `for` bounds
            else:
                pytest.fail(f"post {number} was taken by no server")

    async with httpx.AsyncClient(trust_env=False, timeout=20) as client, anyio.create_task_group() as tasks:
        for _ in range(posters):
            tasks.start_soon(poster, client)


def test_a_reader_that_stops_gets_everything_later(database_url: str, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, DATABASE_URL=database_url, **MANY)
    with server.start():
        alice = server.chat().user()
        channel = alice.channel(alice.guild())
        address = "127.0.0.1", server.port
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
        sock.connect(address)
        url = server.base_url.replace("http", "ws") + "/gateway"
        with connect(
            url,
            sock=sock,
            subprotocols=["openguild.v2"],  # type: ignore[list-item]  # a NewType
            compression=None,
            max_queue=1,
            ping_interval=None,  # the client does not even read pongs
        ) as stream:
            stream.send(json.dumps({"type": "auth", "token": alice.token}))
            stream.send(json.dumps({"type": "sub", "ref": 1, "logs": [{"log": f"channel:{channel}"}]}))
            while json.loads(stream.recv(timeout=PATIENCE_SECS))["type"] != "sub_ok":
                pass
            anyio.run(post_all, [server.base_url], alice, channel, POSTS)
            kinds: list[str] = []
            sequences: list[int] = []
            while len(sequences) < POSTS or "live" not in kinds:
                frame = json.loads(stream.recv(timeout=PATIENCE_SECS))
                if frame["type"] == "ev":
                    sequences.append(frame["seq"])
                else:
                    kinds.append(frame["type"])
            assert sequences == list(range(1, POSTS + 1))
            assert kinds.count("lagging") == kinds.count("live") >= 1
            alice.say(channel, "at once again")
            while (frame := json.loads(stream.recv(timeout=PATIENCE_SECS)))["type"] != "ev":
                pass
            assert frame["seq"] == POSTS + 1


def test_a_rolling_restart_loses_and_repeats_nothing(
    new_database: Callable[[], str], nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    url, count, posts = new_database(), 10, 300
    settings = {"DRAIN__DELAY_SECS": 0, "WEBSOCKET__MAX_CONNECTIONS_PER_USER": 100, **MANY}
    servers = [ServerProcess(tmp_path, DATABASE_URL=url, NATS__URL=nats_server.url, **settings) for _ in range(2)]
    with servers[0], servers[1]:
        alice = servers[0].chat().user()
        channel = alice.channel(alice.guild())
        log = f"channel:{channel}"
        gateways = [f"{server.base_url.replace('http', 'ws')}/gateway" for server in servers]
        clients = [
            DrivenClient([*gateways[number % 2 :], *gateways[: number % 2]], list(Encoding)[number % 2])
            for number in range(count)
        ]

        def restart(server: ServerProcess) -> None:
            assert server.stop(signal.SIGTERM) == 0
            server.start()

        async def everything() -> None:
            for client in clients:
                client.client.follow(log)
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(client.run(alice.token)) for client in clients]
                await eventually(lambda: all(client.client.places.get(log) for client in clients), secs=60)
                posting = tasks.create_task(post_all([server.base_url for server in servers], alice, channel, posts))
                for server in servers:
                    await anyio.to_thread.run_sync(restart, server)
                await posting
                await eventually(
                    lambda: all(len(client.sequences.get(log, ())) >= posts for client in clients), secs=60
                )
                for client, task in zip(clients, running, strict=True):
                    client.client.close()
                    task.cancel()

        anyio.run(everything)
        for client in clients:
            assert client.sequences[log] == list(range(1, posts + 1))
            assert client.client.faults == (0, 0)
            assert client.codes == [], "each left in its slot"
            assert sum(isinstance(event, Opened) for event in client.events) >= 2
        wait_until(lambda: all(server.status("/ready") == 200 for server in servers))

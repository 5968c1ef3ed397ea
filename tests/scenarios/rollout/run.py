"""One rolling restart: the deliveries to each client, and its longest silence."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import anyio
import httpx

from openguild_proto.gateway.encoding import Encoding
from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from tests.scenarios.rollout.proxies import proxied
from tests.support.chat import User
from tests.support.gateway_client import DrivenClient
from tests.support.server import ServerProcess
from tests.support.waiting import eventually, wait_until

CHANNELS = 3
MANY = 1_000_000


class Outcome(NamedTuple):
    """The results. `silence_secs`: the longest time between two deliveries to a client while events were stored continuously.

    `without_code`: connections that ended without a close code (1006). `codes`: the close codes of the others.
    """

    proxy: str
    clients: int
    events: int
    lost: int
    repeated: int
    silence_secs: float
    without_code: int
    codes: list[int]

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.repeated or self.without_code)


async def _change(url: str, user: User, channels: Sequence[str], stop: asyncio.Event, rate: float) -> int:
    """Post, edit and react, each retried with its key until it succeeds. Return the number of changes."""
    chance, number, posted = random.Random(1), 0, list[tuple[str, str]]()
    async with httpx.AsyncClient(trust_env=False, timeout=10, base_url=url) as client:

        async def done(method: str, path: str, body: dict[str, object]) -> dict[str, object]:
            while True:
                try:
                    answer = await client.request(method, path, json=body, headers=user.auth)
                    if answer.status_code == 200:
                        return dict(answer.json())
                except httpx.TransportError:
                    pass
                await anyio.sleep(0.05)

        while not stop.is_set():
            number += 1
            channel = chance.choice(channels)
            kind = chance.random()
            if kind < 0.6 or not posted:
                body = {"content": f"post {number}", "nonce": f"n{number}"}
                posted.append((channel, str((await done("POST", f"/channels/{channel}/messages", body))["event_id"])))
            elif kind < 0.8:
                channel, event_id = posted[-1]
                body = {"content": f"edit {number}", "nonce": f"n{number}"}
                await done("PATCH", f"/channels/{channel}/events/{event_id}", body)
            else:
                channel, event_id = posted[-1]
                reaction = {"emoji": chance.choice("👍🎉🫖"), "action": "add", "nonce": f"n{number}"}
                await done("POST", f"/channels/{channel}/events/{event_id}/reactions", reaction)
            await anyio.sleep(1 / rate)
    return number


async def _clients_and_restarts(
    url: str, servers: list[ServerProcess], alice: User, channels: list[str], clients: list[DrivenClient], rate: float
) -> None:
    logs = [f"channel:{channel}" for channel in channels]
    stop = asyncio.Event()

    def restart(server: ServerProcess) -> None:
        assert server.stop(signal.SIGTERM) == 0
        server.start()

    async with asyncio.TaskGroup() as tasks:
        running = []
        for client in clients:
            for log in logs:
                client.client.follow(log)
            running.append(tasks.create_task(client.run(alice.token)))
            await anyio.sleep(0.005)
        await eventually(lambda: all(len(client.client.places) == len(logs) for client in clients), secs=60)
        changing = tasks.create_task(_change(url, alice, channels, stop, rate))
        await anyio.sleep(2)
        for server in servers:
            await anyio.to_thread.run_sync(restart, server)
            await anyio.sleep(2)
        stop.set()
        await changing
        heads = {log: (await anyio.to_thread.run_sync(_head, servers[0], alice, log)) for log in logs}
        await eventually(
            lambda: all(
                client.client.places[log].sequence >= head for client in clients for log, head in heads.items()
            ),
            secs=60,
        )
        for client, task in zip(clients, running, strict=True):
            client.client.close()
            task.cancel()


def _head(server: ServerProcess, user: User, log: str) -> int:
    answer = httpx.get(
        f"{server.base_url}/channels/{log.partition(':')[2]}/messages?limit=1", headers=user.auth, trust_env=False
    )
    return int(answer.headers["x-openguild-head"])


def roll(proxy: str, count: int, rate: float, directory: Path) -> Outcome:
    """Restart each of two replicas behind `proxy` under `count` clients and `rate` events per second."""
    postgres, nats = EmbeddedPostgres(directory), EmbeddedNats(directory)
    postgres.start()
    nats.start()
    settings = {
        "DATABASE_URL": postgres.url, "NATS__URL": nats.url, "TRUSTED_PROXIES": "127.0.0.1", "DRAIN__DELAY_SECS": 1,
        "WEBSOCKET__MAX_CONNECTIONS_PER_USER": MANY, "WEBSOCKET__MAX_CONNECTIONS_PER_ADDRESS": MANY, "DRAIN__WINDOW_SECS": 10,
    }  # fmt: skip
    servers = [ServerProcess(directory, **settings) for _ in range(2)]
    try:
        assert servers[0].run_command("migrate").returncode == 0
        with servers[0].start(), servers[1].start(), proxied(proxy, directory, [one.port for one in servers]) as port:
            alice = servers[0].chat().user()
            guild = alice.guild()
            channels = [alice.channel(guild, f"c{number}") for number in range(CHANNELS)]
            gateway = f"ws://127.0.0.1:{port}/client/v1/gateway"
            clients = [DrivenClient([gateway], list(Encoding)[number % 2]) for number in range(count)]
            anyio.run(_clients_and_restarts, f"http://127.0.0.1:{port}", servers, alice, channels, clients, rate)
            wait_until(lambda: all(server.status("/ready") == 200 for server in servers))
    finally:
        nats.stop()
        postgres.stop()
    heads = {log: max(sequences) for log, sequences in clients[0].sequences.items()}
    return Outcome(
        proxy=proxy,
        clients=count,
        events=sum(heads.values()),
        lost=sum(
            len(set(range(1, head + 1)) - set(client.sequences.get(log, ())))
            for client in clients
            for log, head in heads.items()
        ),
        repeated=sum(sum(client.client.faults) for client in clients),
        silence_secs=round(max(client.longest_silence_secs for client in clients), 3),
        without_code=sum(code is None for client in clients for code in client.codes),
        codes=sorted({code for client in clients for code in client.codes if code is not None}),
    )

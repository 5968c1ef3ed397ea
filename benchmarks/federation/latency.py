"""From a post on one server to its delivery on another: `python -m benchmarks.federation.latency --rate 100 --secs 10`.

Two servers of a federation alternate with two replicas of one server. Posts go to one of each pair at the given rate; a stream of
the other shows when they arrive. Reports percentiles of both, and their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import anyio
import asyncpg

from benchmarks.lab.program import program
from openguild_proto.canonical.keys import encode_unpadded
from openguild_runtime.client import Client
from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from tests.support.chat import PASSWORD
from tests.support.server import ServerProcess
from tests.support.waiting import free_port

WINDOWS = 3
SENDERS = 8


class Pair:
    """The client that posts, the client that reads, and the measured times."""

    def __init__(self, name: str, near: Client, far: Client, channel: str) -> None:
        self.name, self.near, self.far, self.channel = name, near, far, channel
        self.waits: list[float] = []
        self.cpu_secs = {"server": 0.0, "database": 0.0}
        self._sent: dict[str, float] = {}
        self._seen: dict[str, float] = {}

    async def read(self) -> None:
        async with self.far.subscribe(self.channel) as stream:
            async for event in stream:
                self._seen[event.text] = time.perf_counter()

    async def window(self, number: int, rate: float, secs: float, cpu: Callable[[], dict[str, float]]) -> None:
        """Post at the rate, wait until everything has arrived, and keep the times. `cpu` returns the CPU seconds used so far."""
        before = cpu()
        count, begun, place = int(rate * secs), time.perf_counter(), 0
        self._sent.clear()

        async def post() -> None:
            nonlocal place
            while place < count:
                mine, place = place, place + 1
                await anyio.sleep(max(0.0, begun + mine / rate - time.perf_counter()))
                text = f"{number} {mine}"
                self._sent[text] = time.perf_counter()
                await self.near.post(self.channel, text)

        async with anyio.create_task_group() as tasks:
            for _ in range(SENDERS):
                tasks.start_soon(post)
        with anyio.fail_after(30):
            while not self._sent.keys() <= self._seen.keys():
                await anyio.sleep(0.01)
        self.waits += [self._seen[text] - sent for text, sent in self._sent.items()]
        for part, secs_used in cpu().items():
            self.cpu_secs[part] += secs_used - before[part]

    def told(self) -> dict[str, float]:
        """Return milliseconds: latency percentiles, and CPU per post in both servers and in their database."""
        percentiles = statistics.quantiles(self.waits, n=100)
        return {
            "p50_ms": round(percentiles[49] * 1_000, 2),
            "p99_ms": round(percentiles[98] * 1_000, 2),
            **{f"{part}_cpu_ms": round(secs * 1_000 / len(self.waits), 2) for part, secs in self.cpu_secs.items()},
        }


def cpu_of(pids: Iterable[int]) -> float:
    """Return the CPU seconds of the running processes."""
    ticks = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def person(stack: AsyncExitStack, url: str, name: str) -> Client:
    client = await stack.enter_async_context(Client(url))
    await client.register(name, PASSWORD)
    await client.login(name, PASSWORD, device_id=name)
    return client


async def measured(rate: float, secs: float) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres, nats = EmbeddedPostgres(directory / "data"), EmbeddedNats(directory / "data")
        for private in (postgres, nats):
            await anyio.to_thread.run_sync(private.start)
            stack.push_async_callback(anyio.to_thread.run_sync, private.stop)
        servers = await started(stack, directory, postgres, nats)
        pairs = [await replicas(stack, *servers[2:]), await federated(stack, *servers[:2])]

        def cpu() -> dict[str, float]:
            processes = [server.process.pid for server in servers if server.process is not None]
            return {"server": cpu_of(processes), "database": cpu_of(children_of(postgres_pid))}

        postgres_pid = int((directory / "data" / "postgres" / "postmaster.pid").read_text().split()[0])
        async with anyio.create_task_group() as tasks:
            for pair in pairs:
                tasks.start_soon(pair.read)
            await anyio.sleep(1)
            for number in range(WINDOWS):
                for pair in pairs:
                    await pair.window(number, rate, secs, cpu)
            tasks.cancel_scope.cancel()
        told: dict[str, Any] = {pair.name: pair.told() for pair in pairs}
        one, two = (told[pair.name] for pair in pairs)
        told["ratio"] = {name: round(two[name] / one[name], 2) for name in one}
        return told


async def started(
    stack: AsyncExitStack, directory: Path, postgres: EmbeddedPostgres, nats: EmbeddedNats
) -> list[ServerProcess]:
    connection = await asyncpg.connect(postgres.url)
    for name in ("north", "south", "one"):
        await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    ports = {"north.test": free_port(), "south.test": free_port()}
    servers = [
        ServerProcess(
            directory, port=port, DATABASE_URL=postgres.database_url(name.partition(".")[0]), SERVER_NAME=name,
            FEDERATION__MODE="open", FEDERATION__SIGNING_KEY=encode_unpadded(name.encode().ljust(32, b"k")),
            FEDERATION__ALLOW_PRIVATE_ADDRESSES="true",
            FEDERATION__ADDRESSES__0=",".join(f"{o}=http://127.0.0.1:{p}" for o, p in ports.items() if o != name),
        )
        for name, port in ports.items()
    ]  # fmt: skip
    servers += [
        ServerProcess(directory, DATABASE_URL=postgres.database_url("one"), NATS__URL=nats.url) for _ in range(2)
    ]
    for server in servers:
        if server is not servers[-1]:
            await anyio.to_thread.run_sync(server.run_command, "migrate")
        await anyio.to_thread.run_sync(server.start)
        stack.callback(server.__exit__, None, None, None)
    return servers


async def federated(stack: AsyncExitStack, north: ServerProcess, south: ServerProcess) -> Pair:
    alice, bob = await person(stack, north.base_url, "alice"), await person(stack, south.base_url, "bob")
    guild = await alice.create_guild("two servers")
    channel = await alice.create_channel(guild.guild_id, "general")
    invite = await alice.create_invite(guild.guild_id)
    await bob.accept_invite(f"{invite.code}@north.test")
    return Pair("two servers", alice, bob, channel.channel_id)


async def replicas(stack: AsyncExitStack, one: ServerProcess, two: ServerProcess) -> Pair:
    alice, bob = await person(stack, one.base_url, "alice"), await person(stack, two.base_url, "bob")
    guild = await alice.create_guild("two replicas")
    channel = await alice.create_channel(guild.guild_id, "general")
    invite = await alice.create_invite(guild.guild_id)
    await bob.accept_invite(invite.code)
    return Pair("two replicas", alice, bob, channel.channel_id)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=100.0, help="posts a second")
    parser.add_argument("--secs", type=float, default=10.0, help="of a window; each pair has three")
    options = parser.parse_args()
    sys.stdout.write(json.dumps(anyio.run(measured, options.rate, options.secs), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    program(main)

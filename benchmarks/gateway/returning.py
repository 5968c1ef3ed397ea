"""Gateway sockets that return after a restart: `python -m benchmarks.gateway.returning --sockets 5000 --logs 20`.

All of them are connected to one of two replicas, which is drained. They move to the other one in their slots and resume their logs.
Reports the time until all are up to date, the other replica's `/health` latency meanwhile, and its database's statements.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from benchmarks.load.actors import resident_bytes
from openguild_proto.client import GatewayClient, GatewayLink, ResumePosition
from openguild_proto.gateway import client_events as told
from openguild_proto.gateway.encoding import Encoding
from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from tests.support.chat import PASSWORD
from tests.support.server import ServerProcess

USERS, GUILDS, CHANNELS = 50, 5, 200
MANY = 1_000_000
SHOWN = 160  # characters of a statement
OF_LOGS = ("FROM log_page_v1(", "SELECT log_id, head_sequence, epoch FROM logs ")


class CountingPostgres(EmbeddedPostgres):
    """Counts the statements that it executes."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir, settings={"shared_preload_libraries": "pg_stat_statements"})

    def _run_statements(self, directory: Path, statements: str) -> None:
        super()._run_statements(directory, f"{statements}CREATE EXTENSION pg_stat_statements\n")

    @property
    def counts_url(self) -> str:
        """The URL of the database with the counts of all databases."""
        return self.database_url("postgres")


class Socket(asyncio.Protocol):
    """One client: its machine, and one connection at a time."""

    def __init__(self, places: dict[str, ResumePosition], token: str, ports: list[int]) -> None:
        self.machine = GatewayClient(Encoding.JSON, jitter=random.random, random_bytes=random.randbytes)
        self.connections = 0
        self.codes: list[str] = []
        self._link = GatewayLink(self.machine)
        self._loop = asyncio.get_running_loop()
        self._ports = ports
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        for log, place in places.items():
            self.machine.follow(log, place)
        self.machine.start(token, self._loop.time())
        self.step()

    def step(self) -> None:
        while (event := self.machine.next_event()) is not None:
            match event:
                case told.Connect():
                    task = self._loop.create_task(self._connect())
                    task.add_done_callback(lambda _: None)
                case told.Disconnect(code=code):
                    self._write(self._link.disconnect(code))
                    self._close()
                case told.Interrupted(reason=reason):
                    self.codes.append(reason)
                    self._close()
        self._write(self._link.data_to_send())
        if self._timer is not None:
            self._timer.cancel()
        deadline = self.machine.next_deadline()
        self._timer = self._loop.call_at(deadline, self._due) if deadline is not None else None

    def _due(self) -> None:
        self.machine.handle_deadline(self._loop.time())
        self.step()

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._transport.write(data)

    def _close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    async def _connect(self) -> None:
        port = self._ports[0]
        self._link.connect(f"127.0.0.1:{port}", self._loop.time())
        try:
            await self._loop.create_connection(lambda: self, "127.0.0.1", port)
        except OSError as failure:
            self._link.failed(str(failure), self._loop.time())
        self.connections += 1
        self.step()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._write(self._link.data_to_send())

    def data_received(self, data: bytes) -> None:
        self._link.receive_data(data, self._loop.time())
        self.step()

    def connection_lost(self, failure: Exception | None) -> None:
        if self._transport is not None:
            self._transport = None
            self._link.failed("the connection ended", self._loop.time())
            self.step()


async def measure(servers: list[ServerProcess], postgres: str, count: int, logs: int) -> dict[str, Any]:
    loop, chance = asyncio.get_running_loop(), random.Random(1)
    async with httpx.AsyncClient(base_url=servers[0].base_url, trust_env=False, timeout=60) as http:
        tokens, channels = await _prepare(http)
        ports = [servers[0].port]
        sockets: list[Socket] = []
        for number in range(count):
            chosen = {f"channel:{channel}": ResumePosition(1, 0) for channel in chance.sample(channels, logs)}
            sockets.append(Socket(chosen, tokens[number % USERS], ports))
            if number % 20 == 19:
                await asyncio.sleep(0.02)
        await _until(lambda: _level(sockets, 1))
        before = await _statements(postgres)
        ports[0] = servers[1].port
        poster = loop.create_task(_post(servers[1].base_url, tokens[0], channels))
        health = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.gateway.health", str(servers[1].port), stdout=asyncio.subprocess.PIPE
        )
        first = resident_bytes(servers[1].process.pid) if servers[1].process is not None else 0
        began, cpu = loop.time(), _cpu_secs(servers[1])
        stopping = loop.create_task(asyncio.to_thread(servers[0].stop, signal.SIGTERM, 60))
        await _until(lambda: all(socket.connections >= 2 for socket in sockets))
        returned = loop.time() - began
        await poster
        await _until(lambda: _level(sockets, 2))
        level, cpu = loop.time() - began, _cpu_secs(servers[1]) - cpu
        health.terminate()
        waits = json.loads((await health.communicate())[0])
        calls = Counter(await _statements(postgres)) - Counter(before)
        status = await stopping
        last = resident_bytes(servers[1].process.pid) if servers[1].process is not None else 0
    waits.sort()
    return {
        "sockets": count,
        "logs each": logs,
        "all back, s": round(returned, 2),
        "all level, s": round(level, 2),
        "health p50, ms": round(waits[len(waits) // 2] * 1e3, 1),
        "health p99, ms": round(waits[int(len(waits) * 0.99)] * 1e3, 1),
        "CPU of the other one per socket, ms": round(cpu * 1e3 / count, 2),
        "statements per socket": round(calls.total() / count, 2),
        "statements that read logs, per log": round(_of_logs(calls) / CHANNELS, 2),
        "most frequent statements": dict(calls.most_common(12)),
        "gaps and repeats": sum(sum(socket.machine.faults) for socket in sockets),
        "connections per socket": round(sum(socket.connections for socket in sockets) / count, 3),
        "why connections ended": dict(Counter(code for socket in sockets for code in socket.codes).most_common(6)),
        "memory per socket, bytes": round((last - first) / count),
        "exit status of the stopped one": status,
    }


async def _prepare(http: httpx.AsyncClient) -> tuple[list[str], list[str]]:
    """Create users who are members of all guilds, and channels with one message each."""
    tokens = []
    for number in range(USERS):
        name = f"user{number}"
        await http.post("/users/register", json={"username": name, "password": PASSWORD})
        login = {"identifier": name, "secret": PASSWORD, "device": {"device_id": "d"}}
        tokens.append((await http.post("/sessions/login", json=login)).json()["access_token"])
    owner, channels = {"authorization": f"Bearer {tokens[0]}"}, []
    for number in range(GUILDS):
        guild = (await http.post("/guilds", json={"name": f"g{number}"}, headers=owner)).json()["guild_id"]
        code = (await http.post(f"/guilds/{guild}/invites", json={}, headers=owner)).json()["code"]
        for token in tokens[1:]:
            await http.post(f"/invites/{code}/accept", headers={"authorization": f"Bearer {token}"})
        for channel in range(CHANNELS // GUILDS):
            made = await http.post(f"/guilds/{guild}/channels", json={"name": f"c{channel}"}, headers=owner)
            channels.append(made.json()["channel_id"])
            posted = await http.post(f"/channels/{channels[-1]}/messages", json={"content": "first"}, headers=owner)
            posted.raise_for_status()
    return tokens, channels


async def _post(url: str, token: str, channels: list[str]) -> None:
    """Post one more event in every channel."""
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
        for channel in channels:
            posted = await http.post(f"/channels/{channel}/messages", json={"content": "second"}, headers=headers)
            posted.raise_for_status()


def _level(sockets: list[Socket], head: int) -> bool:
    return all(
        len(places) > 0 and all(place.sequence >= head for place in places.values())
        for places in (socket.machine.places for socket in sockets)
    )


async def _until(condition: Any) -> None:
    async with asyncio.timeout(300):
        while not condition():
            await asyncio.sleep(0.1)


async def _statements(postgres: str) -> dict[str, int]:
    """Return how often each statement was executed, by the beginning of its text."""
    connection = await asyncpg.connect(postgres)
    try:
        rows = await connection.fetch("SELECT query, calls FROM pg_stat_statements WHERE toplevel")
    finally:
        await connection.close()
    calls: Counter[str] = Counter()
    for row in rows:
        calls[" ".join(row["query"].split())[:SHOWN]] += row["calls"]
    return dict(calls)


def _of_logs(calls: Counter[str]) -> int:
    """Count the statements that read events and heads of logs; permissions are read once per socket."""
    return sum(number for text, number in calls.items() if any(part in text for part in OF_LOGS))


def _cpu_secs(server: ServerProcess) -> float:
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sockets", type=int, default=5_000)
    parser.add_argument("--logs", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="og-return-") as name:
        directory = Path(name)
        postgres, nats = CountingPostgres(directory), EmbeddedNats(directory)
        postgres.start()
        nats.start()
        settings = {
            "DATABASE_URL": postgres.url, "NATS__URL": nats.url, "WEBSOCKET__MAX_CONNECTIONS_PER_USER": MANY,
            "WEBSOCKET__MAX_CONNECTIONS_PER_ADDRESS": MANY, "DRAIN__WINDOW_SECS": 30,
        }  # fmt: skip
        servers = [ServerProcess(directory, **settings) for _ in range(2)]
        try:
            assert servers[0].run_command("migrate").returncode == 0
            with servers[0].start(), servers[1].start():
                outcome = asyncio.run(measure(servers, postgres.counts_url, given.sockets, given.logs))
        finally:
            nats.stop()
            postgres.stop()
    sys.stdout.write(json.dumps(outcome, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

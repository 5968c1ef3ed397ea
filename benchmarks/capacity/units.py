"""Unit costs of whole servers: CPU of the server, PostgreSQL and NATS per operation, and bytes.

Only CPU time of the processes counts, not elapsed time, so other load on the machine has little influence.
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import asyncpg
import msgspec

from benchmarks.load.actors import RealServer, cpu_secs
from tests.scenarios.failover.client import Author, Connection
from tests.support.server import ServerProcess

CALLERS = 16
CHANNELS = 16
TEXT = "a message of about eighty characters, as most of them are, give or take some "
TICKS = os.sysconf("SC_CLK_TCK")
CONNECTIONS = 64  # whose set-up is measured


class Cost(msgspec.Struct, frozen=True):
    """CPU of one operation, in microseconds."""

    server: float
    database: float
    bus: float = 0.0


NOTHING = Cost(0.0, 0.0)


class Units(msgspec.Struct, frozen=True):
    """The inputs of the model. `event`: at each replica where a client follows the log. `delivery`: to each follower there."""

    post: Cost
    page: Cost
    folded: Cost
    sync: Cost
    unread: Cost
    connect: Cost
    event: Cost
    idle: Cost  # of a second without requests, in a process without streams
    login_us: float
    delivery_us: float
    connection_bytes: float
    subscription_bytes: float
    event_bytes: float
    wal_bytes: float  # per post


class Spent(NamedTuple):
    """CPU seconds so far."""

    server: float
    database: float
    bus: float

    def since(self, before: Spent, count: float, base: Cost = NOTHING, secs: float = 0.0) -> Cost:
        """Return the cost of one of `count` operations, in microseconds, without the cost of an idle server during `secs`."""
        idle = (secs * each for each in msgspec.structs.astuple(base))
        pairs = zip(self, before, idle, strict=True)
        return Cost(*(max(0.0, 1e6 * (now - then) - rest) / count for now, then, rest in pairs))


class Stage:
    """A server with PostgreSQL and NATS, a second replica, and users with a channel each."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.server = RealServer(directory, METRICS__MAX_AGE_SECS=1)
        stack.callback(self.server.close)
        other = ServerProcess(directory, DATABASE_URL=self.server.postgres.url, NATS__URL=self.server.nats.url)
        self.other = stack.enter_context(other.start())
        chat = self.server.server.chat()
        users = [chat.user() for _ in range(CHANNELS)]
        self.authors = [Author(user.token, user.channel(user.guild())) for user in users]
        self.positions = [[{"log": f"channel:{author.channel}", "epoch": 1, "sequence": 0}] for author in self.authors]

    @property
    def ports(self) -> list[int]:
        return [self.server.server.port]

    def spent(self, *, other: bool = False) -> Spent:
        """Return the CPU time of the first or the second server, of PostgreSQL and of NATS."""
        assert self.other.process is not None
        assert self.server.postgres.pid is not None
        assert self.server.nats.pid is not None
        server = self.other.process.pid if other else self.server.pid
        return Spent(cpu_secs(server), _with_children(self.server.postgres.pid), cpu_secs(self.server.nats.pid))


@contextmanager
def staged(directory: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(directory, stack)


def _with_children(pid: int) -> float:
    """Return the CPU seconds of a process, its running children, and those that have ended."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    total = 0
    for each in (*children, pid):  # the parent last: a child that ends meanwhile is then counted with it
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15] if each == pid else fields[11:13]))
    return total / TICKS


Ask = Callable[[Connection, int, int], Awaitable[None]]


def operations(stage: Stage) -> dict[str, Ask]:
    """Return the requests by name; each gets its connection, its number and its turn."""

    def asking(method: str, path: str, body: Callable[[int, int], object] = lambda who, turn: None) -> Ask:
        async def ask(connection: Connection, who: int, turn: int) -> None:
            author = stage.authors[who % CHANNELS]
            status, found = await connection.ask(method, path.format(author.channel), author.token, body(who, turn))
            if status != 200:
                raise RuntimeError(f"{method} {path}: {status} {found}")

        return ask

    return {
        "post": asking("POST", "/channels/{}/messages", lambda who, turn: {"content": f"{TEXT}{who} {turn}"}),
        "page": asking("GET", "/channels/{}/events?limit=50"),
        "folded": asking("GET", "/channels/{}/messages?limit=50"),
        "sync": asking("POST", "/sync", lambda who, turn: {"positions": stage.positions[who % CHANNELS], "limit": 50}),
        "unread": asking("GET", "/channels/unread"),
    }


async def repeat(stage: Stage, ask: Ask, secs: float) -> int:
    """Send requests continuously, from several callers; return how many."""
    until, counts = time.monotonic() + secs, [0] * CALLERS

    async def caller(who: int) -> None:
        connection = Connection(stage.ports, 0)
        while time.monotonic() < until:
            await ask(connection, who, counts[who])
            counts[who] += 1
        connection.close()

    async with asyncio.TaskGroup() as tasks:
        for who in range(CALLERS):
            tasks.create_task(caller(who))
    return sum(counts)


class Streams:
    """WebSocket streams whose bytes are read and dropped."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.bytes = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, port: int, authors: Sequence[Author], count: int) -> None:
        """Open this many streams, of the authors' channels in turn."""
        for number in range(count):
            author = authors[number % len(authors)]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            key = base64.b64encode(os.urandom(16)).decode()
            writer.write(
                f"GET /channels/{author.channel}/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nAuthorization: Bearer {author.token}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101"):
                raise RuntimeError(head.decode())
            self.writers.append(writer)
            self._tasks.append(asyncio.create_task(self._read(reader)))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(1 << 16):
            self.bytes += len(data)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self.writers:
            writer.close()


async def measure(stage: Stage, secs: float, fixed: dict[str, float]) -> Units:
    """Measure each operation for `secs`. `fixed`: the committed results of other suites."""
    asked = operations(stage)
    await repeat(stage, asked["post"], secs / 2)  # for query plans and caches
    before = stage.spent()
    await asyncio.sleep(secs)
    idle = stage.spent().since(before, secs)
    connection = await asyncpg.connect(stage.server.postgres.url)
    wal, size, before = await _sizes(connection), await _events(connection), stage.spent()
    posts = await repeat(stage, asked["post"], secs)
    costs = {"idle": idle, "post": stage.spent().since(before, posts, idle, secs)}
    grown, larger = await _sizes(connection) - wal, (await _events(connection)) - size
    await connection.close()
    for name in ("page", "folded", "sync", "unread"):
        before = stage.spent()
        count = await repeat(stage, asked[name], secs)
        costs[name] = stage.spent().since(before, count, idle, secs)
    before, streams = stage.spent(), Streams()
    await streams.open(stage.server.server.port, stage.authors, CONNECTIONS)
    costs["connect"] = stage.spent().since(before, CONNECTIONS)
    await streams.close()
    streams = Streams()
    await streams.open(stage.other.port, stage.authors, CHANNELS)
    before = stage.spent(other=True)
    posts_heard = await repeat(stage, asked["post"], secs)
    heard = stage.spent(other=True).since(before, posts_heard, idle, secs)
    await streams.close()
    costs["event"] = Cost(max(0.0, heard.server - fixed["delivery_us"]), 0.0, heard.bus)
    return Units(**costs, event_bytes=larger / posts, wal_bytes=grown / posts, **fixed)


async def _sizes(connection: asyncpg.Connection[asyncpg.Record]) -> float:
    return float(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'"))


async def _events(connection: asyncpg.Connection[asyncpg.Record]) -> float:
    """Return the bytes of all tables and indexes."""
    return float(await connection.fetchval("SELECT pg_database_size(current_database())"))

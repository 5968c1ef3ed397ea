"""Durable appends: one INSERT per commit on one connection, the commit queue alone, and the whole server over HTTP."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import anyio
import asyncpg

from benchmarks.load.actors import RealServer
from openguild_proto.effects.channels import Appended
from openguild_proto.records import Author
from openguild_runtime.embedded import EmbeddedPostgres
from openguild_runtime.storage import migrations
from openguild_runtime.storage.postgres import PostgresStorage
from tests.support.deeds import add_channel, add_guild, add_user, append
from tests.support.server import ServerProcess

POSTERS = 256
CHANNELS = 16
SECS = 4.0
ROUNDS = 3


async def one_by_one(url: str, secs: float = SECS) -> float:
    """Return the commits per second of one connection that inserts one row at a time into a table like `events`."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS bench_events (LIKE log_events INCLUDING ALL)")
        channel = uuid.uuid4()
        statement = await connection.prepare(
            "INSERT INTO bench_events (log_id, sequence, message_number, sender_id, event_id, event_type, wire, fingerprint,"
            " created_at) VALUES ($1, $2, $2, $3, $4, 'message', $5, $6, now())"
        )
        sample = append(str(channel), text="x" * 100)
        done, started = 0, time.monotonic()
        while time.monotonic() < started + secs:
            done += 1
            await statement.fetch(
                channel,
                done,
                str(uuid.uuid4()),
                f"${uuid.uuid4()}",
                sample.wire,
                sample.fingerprint,
            )
        return done / (time.monotonic() - started)
    finally:
        await connection.execute("DROP TABLE IF EXISTS bench_events")
        await connection.close()


async def queue_alone(postgres: EmbeddedPostgres, secs: float = SECS) -> float:
    """Return the appends per second of `PostgresStorage` with 256 waiting callers over 16 channels.

    It has its own database: the single inserts get a new table each time, too.
    """
    name = f"bench_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(postgres.url)
    await connection.execute(f"CREATE DATABASE {name}")
    try:
        await migrations.upgrade(postgres.database_url(name))
        return await _append_for(postgres.database_url(name), secs)
    finally:
        await connection.execute(f"DROP DATABASE {name}")
        await connection.close()


async def _append_for(url: str, secs: float) -> float:
    async with anyio.create_task_group() as tasks:
        storage = PostgresStorage(url, tasks)
        await storage.start()
        owner = await add_user(storage, f"bench{uuid.uuid4().hex[:8]}")
        guild = await add_guild(storage, owner)
        channels = [await add_channel(storage, guild, owner, f"c{number}") for number in range(CHANNELS)]
        author = Author(owner)
        done = 0
        started = time.monotonic()

        async def post(number: int) -> None:
            nonlocal done
            while time.monotonic() < started + secs:
                outcome = await storage.perform(append(channels[number % CHANNELS], owner, "x" * 100, author=author))
                assert isinstance(outcome, Appended)
                done += 1

        async with anyio.create_task_group() as posters:
            for number in range(POSTERS):
                posters.start_soon(post, number)
        rate = done / (time.monotonic() - started)
        await storage.aclose()
        tasks.cancel_scope.cancel()
        return rate


def posted_over_http(port: int, posters: int, secs: float, token: str, channels: list[str]) -> dict[str, Any]:
    """Return the report of `poster.py`."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("poster.py")), str(port), str(posters), str(secs), token, *channels],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def over_http(server: RealServer, port: int, secs: float = SECS) -> dict[str, Any]:
    """Return the posts per second of a whole server with 256 keep-alive connections."""
    guild = server.user.guild("bench")
    channels = [server.user.channel(guild, f"c{number}") for number in range(CHANNELS)]
    return posted_over_http(port, POSTERS, secs, server.user.token, channels)


def measure(server: RealServer, pair: ServerProcess) -> dict[str, Any]:
    """Measure all ways in turns, so that a slow minute of the disk affects each. `pair`: two workers on the same database."""
    url = server.postgres.url
    found: dict[str, list[Any]] = {"single": [], "http": [], "two": [], "queue": []}
    for _ in range(ROUNDS):
        found["single"].append(anyio.run(one_by_one, url))
        found["http"].append(over_http(server, server.server.port))
        found["two"].append(over_http(server, pair.port))
        found["queue"].append(anyio.run(queue_alone, server.postgres, backend_options={"use_uvloop": True}))
    single = statistics.median(found["single"])
    http, two = (sorted(found[way], key=lambda run: run["per_sec"])[ROUNDS // 2] for way in ("http", "two"))
    alone = statistics.median(found["queue"])
    return {
        "one_by_one_per_sec": single, "http": http, "http_two_workers": two, "queue_per_sec": alone,
        "http_ratio": http["per_sec"] / single, "http_two_workers_ratio": two["per_sec"] / single,
        "queue_ratio": alone / single, "rounds": found,
    }  # fmt: skip

"""The work of an owner's process for its mirrors: `python -m benchmarks.federation.delivery [--peers N] [--events N]`.

The store is PostgreSQL. The peers are simulated in the process and answer at once; their CPU time is subtracted. Reports the cost
of a guild with many mirrors, and how fast a mirror that was offline catches up.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import asyncpg
import msgspec

from benchmarks.lab.program import positive, program
from openguild_proto.canonical.keys import EventSigner
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.delivery.deliveries import Deliveries
from openguild_proto.effects import StorageEffect
from openguild_proto.effects.federation import AskPeer, PeerAnswer
from openguild_proto.schemas.between_servers import DeliveryAnswer, MirrorPosition
from openguild_runtime.bus.local import LocalBus
from openguild_runtime.embedded import EmbeddedPostgres
from openguild_runtime.federation.delivering import DeliveryRunner
from openguild_runtime.storage import migrations
from openguild_runtime.storage.postgres import PostgresStorage
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from tests.support.deeds import add_channel, add_guild, add_user, append

CHANNELS = 50
PUBLISHES = 10
SIGNER = EventSigner("owner.test", "1", SigningKey(bytes(32)))
FILL = """
INSERT INTO log_events (log_id, sequence, event_id, event_type, sender_id, wire, fingerprint, message_number, created_at)
SELECT $1::uuid, n, '$' || md5($1::uuid::text || n::text), 'message', 's', convert_to(
    '{"event_id":"$' || md5($1::uuid::text || n::text) || '","content":{"content":"' || repeat('words ', 50) || '"}}', 'UTF8'
), '', n, now() FROM generate_series(1, $2::bigint) AS n
"""


class SentPart(msgspec.Struct):
    """The members that a simulated peer reads of a part of a delivery."""

    log_id: str
    epoch: int
    after: int
    events: list[msgspec.Raw]


class SentDelivery(msgspec.Struct):
    """The members that a simulated peer reads of a delivery."""

    logs: list[SentPart] = []


class Peers:
    """Answers as all peers, and counts."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.events = 0
        self.cpu_secs = 0.0
        self.heard = anyio.Event()
        self._decoder = msgspec.json.Decoder(SentDelivery)

    async def ask(self, effect: AskPeer) -> PeerAnswer:
        began = time.thread_time()
        self.asked.append(time.perf_counter())
        self.heard.set()
        places = []
        for part in self._decoder.decode(effect.body).logs:
            self.events += len(part.events)
            places.append(MirrorPosition(part.log_id, "ok", part.epoch, part.after + len(part.events)))
        answer = PeerAnswer(200, msgspec.json.encode(DeliveryAnswer(places)))
        self.cpu_secs += time.thread_time() - began
        return answer


class CountedStorage(PostgresStorage):
    """Counts effects by name."""

    effects: Counter[str] = Counter()

    async def perform(self, effect: StorageEffect[Any]) -> Any:
        self.effects[type(effect).__name__] += 1
        return await super().perform(effect)


async def begin(url: str, guild: str, channels: list[str], peers: int, after: int) -> None:
    """Let this many peers mirror the guild, each with its channels up to `after`."""
    connection = await asyncpg.connect(url)
    await connection.execute("TRUNCATE federation_guilds, federation_cursors, federation_leases")
    names = [f"peer{number}.test" for number in range(peers)]
    await connection.execute(
        "INSERT INTO federation_guilds (peer, guild_id, since) SELECT peer, $2, now() FROM unnest($1::text[]) AS peer",
        names,
        guild,
    )
    await connection.execute(
        """INSERT INTO federation_cursors (peer, log_id, epoch, sequence)
        SELECT peer, log_id, epoch, CASE WHEN log_id = $3 THEN head_sequence ELSE least(head_sequence, $4) END
        FROM unnest($1::text[]) AS peer, logs WHERE log_id = $3 OR log_id = ANY ($2::uuid[])""",
        names,
        channels,
        guild,
        after,
    )
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


async def many_mirrors(
    storage: CountedStorage, url: str, guild: str, channels: list[str], count: int
) -> dict[str, Any]:
    """Measure the cost of a publish when all mirrors are up to date."""
    await begin(url, guild, channels, count, 10**9)
    peers = Peers()
    async with anyio.create_task_group() as tasks:
        deliveries = Deliveries("bench", SIGNER, lambda: 0.5)
        gc.collect()
        tracemalloc.start()
        runner = _runner(deliveries, storage, peers, tasks)
        runner.start()
        while len(deliveries.peers) < count or len(peers.asked) < count:
            await anyio.sleep(0.2)
        await anyio.sleep(1)
        gc.collect()
        nbytes = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        first, last, cpu, requests = [], [], [], []
        storage.effects.clear()
        for _ in range(PUBLISHES):
            peers.asked.clear()
            await storage.perform(append(channels[0], text="words " * 50))
            stored, began, theirs = time.perf_counter(), time.process_time(), peers.cpu_secs
            runner.grew(channels[0])
            while len(peers.asked) < count:
                await anyio.sleep(0.001)
            first.append(peers.asked[0] - stored)
            last.append(peers.asked[-1] - stored)
            await anyio.sleep(0.3)
            cpu.append(time.process_time() - began - (peers.cpu_secs - theirs))
            requests.append(len(peers.asked))
        effects = {name: round(number / PUBLISHES, 1) for name, number in storage.effects.most_common(8)}
        tasks.cancel_scope.cancel()
    connection = await asyncpg.connect(url)
    rows = await connection.fetchval("SELECT count(*) FROM federation_cursors")
    size = await connection.fetchval("SELECT pg_total_relation_size('federation_cursors')")
    await connection.close()
    return {
        "peers": count, "cursors": rows, "cursor_bytes": round(size / rows), "memory_bytes_per_peer": round(nbytes / count),
        "requests_per_publish": max(requests), "effects_per_publish": effects,
        "cpu_ms_per_publish": round(statistics.median(cpu) * 1_000, 1),
        "first_request_ms": round(statistics.median(first) * 1_000, 2),
        "last_request_ms": round(statistics.median(last) * 1_000, 1),
    }  # fmt: skip


async def one_mirror(storage: CountedStorage, url: str, guild: str, channels: list[str]) -> dict[str, Any]:
    """Measure the time from commit to request, with one mirror that is up to date."""
    await begin(url, guild, channels, 1, 10**9)
    peers = Peers()
    waits, appends = [], []
    async with anyio.create_task_group() as tasks:
        runner = _runner(Deliveries("bench 1", SIGNER, lambda: 0.5), storage, peers, tasks)
        runner.start()
        while not peers.asked:
            await anyio.sleep(0.1)
        for _ in range(200):
            peers.asked.clear()
            peers.heard = anyio.Event()
            began = time.perf_counter()
            await storage.perform(append(channels[0]))
            stored = time.perf_counter()
            appends.append(stored - began)
            runner.grew(channels[0])
            await peers.heard.wait()
            waits.append(peers.asked[0] - stored)
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    spread = statistics.quantiles(waits, n=100)
    return {
        "append_p50_ms": round(statistics.median(appends) * 1_000, 2),
        "commit_to_request_p50_ms": round(spread[49] * 1_000, 2), "p99_ms": round(spread[98] * 1_000, 2),
    }  # fmt: skip


async def catch_up(storage: CountedStorage, url: str, guild: str, channels: list[str], events: int) -> dict[str, Any]:
    """Let one peer catch up that lacks all events of all channels."""
    connection = await asyncpg.connect(url)
    for channel in channels:
        await connection.execute("DELETE FROM log_events WHERE log_id = $1", channel)
        await connection.execute(FILL, channel, events // len(channels))
        await connection.execute(
            "UPDATE logs SET head_sequence = $2, message_count = $2 WHERE log_id = $1", channel, events // len(channels)
        )
    await connection.execute("TRUNCATE federation_chains CASCADE")
    await connection.close()
    await begin(url, guild, channels, 1, 0)
    peers = Peers()
    async with anyio.create_task_group() as tasks:
        runner = _runner(Deliveries("bench 2", SIGNER, lambda: 0.5), storage, peers, tasks)
        wall, cpu = time.perf_counter(), time.process_time()
        runner.start()
        while peers.events < events:
            await anyio.sleep(0.002)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu - peers.cpu_secs
        tasks.cancel_scope.cancel()
    return {
        "events": events, "logs": len(channels), "requests": len(peers.asked),
        "bound": events // 200 + len(channels), "events_per_cpu_sec": round(events / cpu), "events_per_sec": round(events / wall),
    }  # fmt: skip


def _runner(deliveries: Deliveries, storage: CountedStorage, peers: Peers, tasks: Any) -> DeliveryRunner:
    return DeliveryRunner(
        deliveries, storage=storage, ask=peers.ask, bus=LocalBus(), tasks=tasks, sources=ClocksAndEntropy()
    )


async def run(url: str, peers: int, events: int, only: str | None) -> dict[str, Any]:
    """Run all measurements, one after another."""
    await migrations.upgrade(url)
    async with anyio.create_task_group() as tasks:
        storage = CountedStorage(url, tasks)
        await storage.start()
        owner = await add_user(storage)
        guild = await add_guild(storage, owner)
        channels = [await add_channel(storage, guild, owner) for _ in range(CHANNELS)]
        told = {}
        if only in {None, "one"}:
            told["one mirror"] = await one_mirror(storage, url, guild, channels)
        if only in {None, "many"}:
            told["many mirrors"] = await many_mirrors(storage, url, guild, channels, peers)
        if only in {None, "catch-up"}:
            told["catch-up"] = await catch_up(storage, url, guild, channels, events)
        await storage.aclose()
    return told


def measured(peers: int, events: int, only: str | None) -> dict[str, Any]:
    """Return the results of `run` on a private PostgreSQL."""
    with tempfile.TemporaryDirectory() as directory:
        postgres = EmbeddedPostgres(Path(directory), fsync=False)
        try:
            postgres.start()
            found: dict[str, Any] = anyio.run(
                run, postgres.url, peers, events, only, backend_options={"use_uvloop": True}
            )
            return found
        finally:
            postgres.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=positive, default=1_000)
    parser.add_argument("--events", type=positive, default=100_000)
    parser.add_argument("--only", choices=("one", "many", "catch-up"))
    options = parser.parse_args()
    print(json.dumps(measured(options.peers, options.events, options.only), indent=2))


if __name__ == "__main__":
    program(main)

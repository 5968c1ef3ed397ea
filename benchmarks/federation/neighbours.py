"""Latencies of an owner's clients while a mirror catches up: `python -m benchmarks.federation.neighbours [--events N]`.

One server owns a guild of 50 channels; peers that lack all of its events begin to mirror it, one after another. A separate process
answers and signs as these peers. During each catch-up, and for as long afterwards, clients post in another guild. Reports the
duration of their posts, without and with a catch-up, and the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import httpx
import msgspec

from benchmarks.federation.delivery import FILL, SentDelivery
from benchmarks.federation.latency import person
from benchmarks.lab.program import positive, program
from openguild_proto.canonical.keys import EventSigner, encode_unpadded
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects.federation import PublishedKey
from openguild_proto.federation.keys import DAY_MS, write_keys_document
from openguild_proto.federation.signatures import Signed, read_claim, sign_answer
from openguild_proto.http.message import Headers
from openguild_proto.schemas.between_servers import DeliveryAnswer, MirrorPosition
from openguild_runtime.client import Client
from openguild_runtime.embedded import EmbeddedPostgres
from tests.support.server import ServerProcess
from tests.support.waiting import free_port

CHANNELS = 50
ROUNDS = 4
SENDERS = 8
NORTH = "north.test"


# --- the peers, in a separate process ----------------------------------------------------------------


def signer_of(server: str) -> EventSigner:
    return EventSigner(server, "1", SigningKey(server.encode().ljust(32, b"p")))


class Peers:
    """Answers as the peer that a request addresses, and counts events per peer."""

    def __init__(self) -> None:
        self.events: dict[str, int] = {}
        self._decoder = msgspec.json.Decoder(SentDelivery)

    def answer(self, path: str, headers: Headers, body: bytes) -> bytes:
        server = dict(headers)["host"]
        if path == "/count":
            return _written(json.dumps(self.events).encode(), ())
        if path == "/federation/v1/keys":
            now = time.time_ns() // 1_000_000
            key = PublishedKey("1", signer_of(server).public, now - DAY_MS, now + 7 * DAY_MS)
            return _written(msgspec.json.encode(write_keys_document(server, [key], [signer_of(server)])), ())
        places = []
        for part in self._decoder.decode(body).logs:
            self.events[server] = self.events.get(server, 0) + len(part.events)
            places.append(MirrorPosition(part.log_id, "ok", part.epoch, part.after + len(part.events)))
        told = msgspec.json.encode(DeliveryAnswer(places))
        claim = read_claim(headers)
        signed = Signed(claim.server, claim.key_id, claim.created, claim.nonce, claim.label, claim.signature)
        return _written(told, sign_answer(200, told, signed, signer=signer_of(server), created=int(time.time())))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                lines = (line.partition(":") for line in head[1:] if line)
                headers = tuple((name.lower(), value.strip()) for name, _, value in lines)
                body = await reader.readexactly(int(dict(headers).get("content-length", "0")))
                writer.write(self.answer(head[0].split(" ")[1], headers, body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def _written(body: bytes, headers: Headers) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"content-length: {len(body)}", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def run_peers(port: int) -> None:
    async def forever() -> None:
        server = await asyncio.start_server(Peers().serve, "127.0.0.1", port, limit=4 * 1024 * 1024)
        await server.serve_forever()

    asyncio.run(forever())


# --- the measurement ---------------------------------------------------------------------------------


class Neighbours:
    """Clients that post at a rate in a guild that nobody mirrors."""

    def __init__(self, client: Client, channel: str, rate: float) -> None:
        self._client, self._channel, self._rate = client, channel, rate

    async def post(self, waits: list[float]) -> None:
        """Post until cancelled."""
        begun, place = time.perf_counter(), 0

        async def one() -> None:
            nonlocal place
            while True:
                mine, place = place, place + 1
                await anyio.sleep(max(0.0, begun + mine / self._rate - time.perf_counter()))
                sent = time.perf_counter()
                await self._client.post(self._channel, f"post {mine}")
                waits.append(time.perf_counter() - sent)

        async with anyio.create_task_group() as tasks:
            for _ in range(SENDERS):
                tasks.start_soon(one)


async def measured(events: int, rate: float) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = EmbeddedPostgres(directory / "data")
        await anyio.to_thread.run_sync(postgres.start)
        stack.push_async_callback(anyio.to_thread.run_sync, postgres.stop)
        port, names = free_port(), [f"p{number}.test" for number in range(ROUNDS)]
        peers = multiprocessing.get_context("spawn").Process(target=run_peers, args=(port,), daemon=True)
        peers.start()
        stack.callback(peers.terminate)
        server = ServerProcess(
            directory, DATABASE_URL=postgres.url, SERVER_NAME=NORTH, FEDERATION__MODE="open",
            FEDERATION__SIGNING_KEY=encode_unpadded(b"n" * 32), FEDERATION__ALLOW_PRIVATE_ADDRESSES="true",
            **{f"FEDERATION__ADDRESSES__{n}": f"{name}=http://127.0.0.1:{port}" for n, name in enumerate(names)},
        )  # fmt: skip
        await anyio.to_thread.run_sync(server.run_command, "migrate")
        await anyio.to_thread.run_sync(server.start)
        stack.callback(server.__exit__, None, None, None)
        alice, carol = [await person(stack, server.base_url, name) for name in ("alice", "carol")]
        guild, other = await alice.create_guild("mirrored"), await carol.create_guild("not mirrored")
        channels = [(await alice.create_channel(guild.guild_id, f"c{n}")).channel_id for n in range(CHANNELS)]
        connection = await asyncpg.connect(postgres.url)
        stack.push_async_callback(connection.close)
        for channel in channels:
            await connection.execute(FILL, channel, events // CHANNELS)
            await connection.execute(
                "UPDATE logs SET head_sequence = $2, message_count = $2 WHERE log_id = $1", channel, events // CHANNELS
            )
        await connection.execute("VACUUM ANALYZE")
        http = await stack.enter_async_context(httpx.AsyncClient())
        room = await carol.create_channel(other.guild_id, "general")
        neighbours = Neighbours(carol, room.channel_id, rate)
        quiet: list[float] = []
        beside: list[float] = []
        secs = []
        for name in names:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(neighbours.post, beside)
                begun = time.perf_counter()
                await connection.execute(
                    "INSERT INTO federation_guilds (peer, guild_id, since) VALUES ($1, $2, now())", name, guild.guild_id
                )
                await alice.post(channels[0], "wake up")
                with anyio.fail_after(300):
                    while (await http.get(f"http://127.0.0.1:{port}/count")).json().get(name, 0) < events:
                        await anyio.sleep(0.2)
                secs.append(time.perf_counter() - begun)
                tasks.cancel_scope.cancel()
            with anyio.move_on_after(secs[-1]):
                await neighbours.post(quiet)
        told: dict[str, Any] = {"quiet": spread(quiet), "beside a catch-up": spread(beside)}
        told["ratio"] = {
            key: round(told["beside a catch-up"][key] / told["quiet"][key], 2) for key in ("p50_ms", "p99_ms")
        }
        return told | {"catch_up_secs": [round(each, 1) for each in secs]}


def spread(waits: list[float]) -> dict[str, float]:
    percentiles = statistics.quantiles(waits, n=100)
    return {
        "posts": len(waits),
        "p50_ms": round(percentiles[49] * 1_000, 2),
        "p99_ms": round(percentiles[98] * 1_000, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=positive, default=100_000)
    parser.add_argument("--rate", type=float, default=50.0, help="posts a second")
    options = parser.parse_args()
    sys.stdout.write(json.dumps(anyio.run(measured, options.events, options.rate), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    program(main)

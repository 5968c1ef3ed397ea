"""The measurements, one function each. A result is a plain dict of numbers, with a ratio if it is a comparison."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import timeit
from collections.abc import Callable
from typing import Any

import httpx

from benchmarks.lab.program import FailedError
from benchmarks.load.actors import (
    FRAME_BYTES,
    OPENINGS,
    UNEVEN,
    Crowd,
    HealthWatch,
    RealServer,
    cpu_secs,
    peer,
    resident_bytes,
)
from openguild_proto.fanout import native
from openguild_proto.fanout.ring import Ring as PureRing
from openguild_proto.ws.frames import text_frame

Result = dict[str, Any]


def broadcast(name: str, subscribers: int, rate: float, count: int, burst: int) -> Result:
    """Measure one peer with one crowd: CPU microseconds per delivery, and latency. Raises FailedError for lost messages."""
    with peer(name) as (talker, port, target, token):
        crowd = Crowd(port, subscribers, target, token, opening=OPENINGS.get(name))
        try:
            crowd.begin_reading(count=count * burst)
            spent = talker.ask(f"go {rate} {count} {burst} {FRAME_BYTES}")
            heard = crowd.result()
        finally:
            crowd.close()
    arrived(name, heard, count * burst, even=name not in UNEVEN)
    deliveries = subscribers * count * burst
    return {
        "cpu_us": spent["cpu"] / deliveries * 1e6,
        "per_cpu_sec": deliveries / spent["cpu"],
        "connects_per_sec": subscribers / crowd.secs,
        **{key: heard[key] for key in ("p50", "p99", "p999", "latencies")},
    }


def whole_server(server: RealServer, subscribers: int, rate: float, count: int) -> Result:
    """Measure the CPU of the server process per delivery, with HTTP post, token, permission, durable append, NATS and fan-out."""
    crowd = server.crowd(subscribers, since=head(server))
    try:
        crowd.begin_reading(1.0, count)
        before = cpu_secs(server.pid)
        server.post_at(rate, count)
        heard = crowd.result()
        spent = cpu_secs(server.pid) - before
    finally:
        crowd.close()
    arrived("the server", heard, count)
    return {
        "cpu_us": spent / subscribers / count * 1e6,
        **{key: heard[key] for key in ("p50", "p99", "p999", "latencies")},
    }


def arrived(name: str, heard: Result, count: int, *, even: bool = True) -> None:
    """Raise FailedError unless all `count` messages arrived once and in order, and if `even`, with the same bytes for each."""
    if heard["frames"] != [count] or (even and not heard["even"]):
        raise FailedError(f"{name} lost messages or repeated some: {heard['frames']} instead of {count}")
    if not heard["in_order"]:
        raise FailedError(f"{name} delivered messages out of order")


def head(server: RealServer) -> int:
    state = server.user.ok(server.user.post(f"/channels/{server.channel}/read"))
    return int(state["latest_sequence"])


def memory_of_peer(name: str, subscribers: int) -> Result:
    with peer(name) as (talker, port, target, token):
        Crowd(port, 50, target, token).close()  # allocates memory that does not depend on the number
        before = resident_bytes(talker.process.pid)
        crowd = Crowd(port, subscribers, target, token)
        try:
            return {"bytes": (resident_bytes(talker.process.pid) - before) / subscribers}
        finally:
            crowd.close()


def memory_of_server(server: RealServer, subscribers: int) -> Result:
    server.crowd(50, since=head(server)).close()
    before = resident_bytes(server.pid)
    crowd = server.crowd(subscribers, since=head(server))
    try:
        return {"bytes": (resident_bytes(server.pid) - before) / subscribers}
    finally:
        crowd.close()


def setup_with_replay(server: RealServer, subscribers: int) -> Result:
    """Measure connects per second, with handshake, token, membership and a replay of 50 events."""
    while head(server) < 50:
        server.user.say(server.channel, "something to replay")
    crowd = server.crowd(subscribers)
    crowd.close()
    return {"connects_per_sec": subscribers / crowd.secs}


def stall(server: RealServer, subscribers: int) -> Result:
    """Send messages to a large crowd. Return the longest stall of the loop, as its bucket's bound, and of `/health`."""
    crowd = server.crowd(subscribers, since=head(server))
    try:
        crowd.begin_reading(1.0, 5)
        before = server.server.longer_stalls()
        with HealthWatch(server.server.base_url) as watch:
            server.post_at(2, 5)
            heard = crowd.result()
        arrived("the server", heard, 5)
        longest = min(bound for bound, count in server.server.longer_stalls().items() if count == before[bound])
    finally:
        crowd.close()
    return {"stall_ms": longest * 1e3, "health_ms": watch.longest * 1e3, "p99": heard["p99"]}


def slow_readers(server: RealServer, subscribers: int, rate: float, count: int, fraction: float) -> Result:
    """Measure the latency of healthy subscribers while a part of the crowd has stopped reading."""
    crowd = server.crowd(subscribers, since=head(server))
    try:
        crowd.ask(f"stop {fraction}")
        crowd.begin_reading(1.0, count)
        server.post_at(rate, count)
        heard = crowd.result()
    finally:
        crowd.close()
    arrived("the server", heard, count, even=False)
    return {key: heard[key] for key in ("p50", "p99", "p999")}


def many_channels(channels: int, each: int) -> Result:
    """Send a message to each of many small channels, to measure the cost of a channel in addition to its deliveries."""
    with (
        peer("openguild") as (talker, port, _, token),
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {token}"}, trust_env=False
        ) as client,
        tempfile.NamedTemporaryFile("w") as targets,
    ):
        guild = client.post("/guilds", json={"name": "many"}).json()["guild_id"]
        for number in range(channels):
            made = client.post(f"/guilds/{guild}/channels", json={"name": str(number)}).json()
            targets.write(f"/channels/{made['channel_id']}/ws\n")
        targets.flush()
        crowd = Crowd(port, channels * each, f"@{targets.name}", token)
        try:
            crowd.begin_reading(1.0, 4)
            spent = talker.ask(f"go 1 4 1 {FRAME_BYTES}")
            heard = crowd.result()
        finally:
            crowd.close()
    arrived("openguild", heard, 4)
    return {"cpu_us": spent["cpu"] / (channels * each * 4) * 1e6, "p99": heard["p99"]}


# --- the rings alone ---------------------------------------------------------------------------------


def _seconds(action: Callable[[], object], number: int) -> float:
    return min(timeit.repeat(action, number=number, repeat=7)) / number


def ring_scaling() -> Result:
    """Compare the cost of publishing with 100,000 and with 10 subscribers, which must not differ."""
    frame = text_frame(b"x" * FRAME_BYTES)
    found = {}
    for slots in (10, 100_000):
        ring = native.Ring(0)
        for _ in range(slots):
            ring.attach(0)
        found[slots] = _seconds(lambda ring=ring: ring.publish(frame), 20_000)
    return {"ratio": found[100_000] / found[10], "ns": {str(slots): secs * 1e9 for slots, secs in found.items()}}


def ring_native_against_pure(slots: int = 10_000) -> Result:
    """Compare the rings: publish one frame and take it for every cursor."""
    frame = text_frame(b"x" * FRAME_BYTES)
    found = {}
    for name, kind in (("native", native.Ring), ("pure", PureRing)):
        ring = kind(0)
        for _ in range(slots):
            ring.attach(0)

        def once(ring: PureRing = ring) -> None:
            ring.publish(frame)
            ring.deliver(slots, 65_536)

        found[name] = _seconds(once, 20 if name == "native" else 3)
    return {"ratio": found["pure"] / found["native"], "us": {name: secs * 1e6 for name, secs in found.items()}}


def median(values: list[float]) -> float:
    return statistics.median(values)


def quietly(action: Callable[[], Result]) -> Result | None:
    """Return the result, or None if a peer fails at this size."""
    with contextlib.suppress(RuntimeError, TimeoutError):
        return action()
    return None

"""A whole server with very many idle streams: set-up, memory, one message to all."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.load.actors import Crowd, HealthWatch, RealServer, cpu_secs, resident_bytes
from benchmarks.load.measures import arrived, head
from openguild_proto.policy.descriptors import DescriptorBudget
from openguild_runtime.server.descriptors import raise_limit

SET_ASIDE = 100  # descriptors that the server, or a generator, needs for itself
CROWD = 15_000  # sockets of one generator: each one has its own source address, with ports for this many
PING_SECS = 3_600  # the crowd does not answer pings
POSTS = 5
QUIET_SECS = 2.0


def possible(wanted: int) -> int:
    """Return how many of `wanted` streams the limit of open files allows in one process."""
    return min(wanted, DescriptorBudget(raise_limit(), SET_ASIDE, wanted + SET_ASIDE).streams - SET_ASIDE)


def measure(subscribers: int) -> dict[str, Any]:
    """Return memory, set-up and one message, each per subscriber of a channel."""
    with tempfile.TemporaryDirectory() as directory:
        server = RealServer(Path(directory), WEBSOCKET__PING_INTERVAL_SECS=PING_SECS)
        crowds: list[Crowd] = []
        try:
            server.crowd(50, since=head(server)).close()  # allocates what is not per subscriber
            memory, cpu, started = resident_bytes(server.pid), cpu_secs(server.pid), time.monotonic()
            since = head(server)
            while (left := subscribers - CROWD * len(crowds)) > 0:
                crowds.append(server.crowd(min(CROWD, left), since=since))
            secs, cpu = time.monotonic() - started, cpu_secs(server.pid) - cpu
            found = {
                "subscribers": subscribers,
                "bytes": (resident_bytes(server.pid) - memory) / subscribers,
                "connects_per_sec": subscribers / secs,
                "connect_cpu_us": cpu / subscribers * 1e6,
            }
            return found | _message(server, crowds, subscribers)
        finally:
            for crowd in crowds:
                crowd.close()
            server.close()


def _message(server: RealServer, crowds: list[Crowd], subscribers: int) -> dict[str, Any]:
    """Send `POSTS` messages, each to all: CPU per delivery, latencies, and how long the loop was blocked."""
    for crowd in crowds:
        crowd.begin_reading(QUIET_SECS, POSTS)
    stalls, cpu = server.server.longer_stalls(), cpu_secs(server.pid)
    with HealthWatch(server.server.base_url) as watch:
        server.post_at(1.0, POSTS)
        heard = [crowd.result() for crowd in crowds]
    cpu = cpu_secs(server.pid) - cpu
    for each in heard:
        arrived("the server", each, POSTS)
    after = server.server.longer_stalls()
    return {
        "delivery_cpu_us": cpu / subscribers / POSTS * 1e6,
        "p50_ms": max(each["p50"] for each in heard) * 1e3,
        "last_ms": max(each["max"] for each in heard) * 1e3,
        "stall_ms": min(bound for bound, count in after.items() if count == stalls[bound]) * 1e3,
        "health_ms": watch.longest * 1e3,
    }

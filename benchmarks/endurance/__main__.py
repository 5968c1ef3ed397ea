"""`python -m benchmarks.endurance resets` and `... soak`: the resources that a server still holds after long abuse."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.endurance.abuse import KINDS, Abuse
from benchmarks.endurance.stack import Held, WatchedServer, lives, proxies, serving
from benchmarks.lab.program import positive, program
from benchmarks.lab.results import require_writable, stamped, write
from tests.support.waiting import wait_until

GENERATORS = 3
SETTLE_SECS = 100.0  # a proxy's keep-alive connection may stay open for 75
LOOKS = 10
LOOK_SECS = 0.1
MEMORY_MIB = 4.0
SAMPLE_SECS = 10.0
SLOPE_FROM_SECS = 300.0
SLOPE_MIB_PER_MIN = 0.2


def resets(loop: str, connections: int) -> dict[str, Any]:
    """Compare the resources before and after `connections`, a tenth of which end at a random moment of any phase."""
    with tempfile.TemporaryDirectory() as name, serving(Path(name), loop) as (server, user, channel):
        with proxies(Path(name), server.port) as ports:
            targets = [server.port, *ports]
            warmed = _live(targets, user, channel, connections // 10, wild=0.1)
            before = _settled(server)
            ended = _live(targets, user, channel, connections - connections // 10, wild=0.1)
        after = _settled(server)
        answered = server.status("/ready")
        status = server.stop()
    same = _counted(before) == _counted(after)
    grown = round(after.memory_mib - before.memory_mib, 1)
    cached = round(after.replay_pages_mib - before.replay_pages_mib, 1)
    return {
        "loop": loop, "connections": connections, "through": ["direct", *("nginx", "haproxy")[: len(ports)]],
        "lives": dict(warmed + ended), "before": before._asdict(), "after": after._asdict(),
        "grown_mib": grown, "of_that_replay_pages_mib": cached, "ready": answered, "exit": status,
        "passed": same and grown - cached <= MEMORY_MIB and answered == 200 and status == 0,
    }  # fmt: skip


def _counted(held: Held) -> Held:
    """Return the counts that must be exactly the same before and after."""
    return held._replace(memory_mib=0, replay_pages_mib=0)


def _live(ports: list[int], user: Any, channel: str, count: int, wild: float) -> Counter[str]:
    share = count // GENERATORS
    running = [lives(ports, user, channel, count=share, wild=wild, seed=count + number) for number in range(GENERATORS)]
    total: Counter[str] = Counter()
    for process in running:
        out, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"a generator ended with {process.returncode}")
        total.update(json.loads(out)["ended"])
    return total


def _settled(server: WatchedServer) -> Held:
    """Return the resources held once the remaining clients have gone, or after a while."""
    try:
        wait_until(lambda: server.held().connections == 0, secs=SETTLE_SECS)
    except AssertionError:
        print(f"connections are left: {server.held()}", file=sys.stderr)
    looks: list[Held] = []
    for _ in range(LOOKS):
        looks.append(server.held(settled=True))
        time.sleep(LOOK_SECS)
    return min(looks, key=lambda held: (held.tasks, held.descriptors))  # a running query has a task


def soak(loop: str, secs: float) -> dict[str, Any]:
    """Apply abuse of every kind, and 20 connections per second, half of them reset."""
    samples: list[tuple[float, Held]] = []
    with tempfile.TemporaryDirectory() as name, serving(Path(name), loop) as (server, user, channel):
        churn = lives([server.port], user, channel, count=10**9, wild=0.5, seed=1, secs=secs, rate=20)
        began = time.monotonic()
        with Abuse(server, user, channel) as abuse:
            while (passed := time.monotonic() - began) < secs:
                abuse.step(passed)
                if passed >= len(samples) * SAMPLE_SECS:
                    samples.append((passed, server.held()))
                    print(f"{passed:6.0f} s  {samples[-1][1]}", file=sys.stderr)
                time.sleep(0.05)
        out, _ = churn.communicate(timeout=60)
        after = _settled(server)
        status = server.stop()
    late = [(at, held) for at, held in samples if at >= min(SLOPE_FROM_SECS, secs / 2)]
    slopes = {
        field: round(_slope([(at, float(getattr(held, field))) for at, held in late]), 3)
        for field in ("memory_mib", "descriptors", "tasks")
    }
    return {
        "loop": loop, "secs": secs, "abuse": KINDS, "churn": json.loads(out)["ended"], "slopes_per_min": slopes,
        "first": samples[0][1]._asdict(), "after": after._asdict(), "exit": status,
        "passed": slopes["memory_mib"] < SLOPE_MIB_PER_MIN and after.connections == 0 and status == 0,
    }  # fmt: skip


def _slope(points: list[tuple[float, float]]) -> float:
    """Return the slope per minute, by least squares."""
    return statistics.linear_regression(*zip(*points, strict=True)).slope * 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endurance", description=__doc__)
    parser.add_argument("what", choices=("resets", "soak"))
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--connections", type=positive, default=1_000_000, help="of `resets`")
    parser.add_argument("--minutes", type=float, default=20.0, help="of `soak`")
    parser.add_argument("--save", action="store_true", help="keep what is found in benchmarks/results")
    options = parser.parse_args()
    if options.save:
        require_writable()
    stamp = stamped({})
    if options.what == "resets":
        found = resets(options.loop, options.connections)
    else:
        found = soak(options.loop, options.minutes * 60)
    print(json.dumps(found, indent=1))
    if options.save:
        write(f"endurance-{options.what}-{options.loop}", stamp | found)
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    try:
        program(main)
    except subprocess.SubprocessError as failure:
        sys.exit(str(failure))

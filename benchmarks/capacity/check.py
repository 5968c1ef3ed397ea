"""A mixed load on one server: its measured CPU time, and the time that the unit costs predict."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import msgspec

from benchmarks.capacity.units import CALLERS, CHANNELS, Cost, Stage, Streams, Units, operations
from tests.scenarios.failover.client import Connection

STREAMS = 640  # 40 readers of each channel
MIX = ("post", "folded", "folded", "page", "sync", "unread", "folded", "post")


class Checked(msgspec.Struct, frozen=True):
    """CPU seconds of a mixed load, measured and predicted."""

    streams: int
    asked: dict[str, int]
    deliveries: int
    measured: Cost
    predicted: Cost

    @property
    def ratio(self) -> float:
        """The ratio of all measured to all predicted time."""
        return sum(msgspec.structs.astuple(self.measured)) / sum(msgspec.structs.astuple(self.predicted))


async def check(stage: Stage, units: Units, secs: float) -> Checked:
    """Run all operations at once, while streams follow the channels."""
    streams, asked = Streams(), operations(stage)
    await streams.open(stage.server.server.port, stage.authors, STREAMS)
    counts: Counter[str] = Counter()
    until, before = time.monotonic() + secs, stage.spent()

    async def caller(who: int) -> None:
        connection, turn = Connection(stage.ports, 0), 0
        while time.monotonic() < until:
            name = MIX[(who + turn) % len(MIX)]
            await asked[name](connection, who, 1_000_000 + turn)
            counts[name] += 1
            turn += 1
        connection.close()

    async with asyncio.TaskGroup() as tasks:
        for who in range(CALLERS):
            tasks.create_task(caller(who))
    measured = stage.spent().since(before, 1e6)  # in seconds
    await streams.close()
    deliveries = counts["post"] * STREAMS // CHANNELS
    predicted = [0.0, 0.0, 0.0]
    for name, count in counts.items():
        for place, cost in enumerate(msgspec.structs.astuple(getattr(units, name))):
            predicted[place] += 1e-6 * count * cost
    for place, cost in enumerate(msgspec.structs.astuple(units.idle)):
        predicted[place] += 1e-6 * secs * cost
    predicted[0] += 1e-6 * deliveries * units.delivery_us
    return Checked(STREAMS, dict(counts), deliveries, measured, Cost(*predicted))

"""A text of the metrics serves for a while: who asks often costs no more than who asks once."""

from __future__ import annotations

import json
import subprocess
import sys

import anyio
import pytest
from prometheus_client import generate_latest

from openguild_runtime.observability.metrics import CHUNK_SAMPLES, Metrics
from openguild_runtime.server.exposition import Exposition
from tests.support.server import ROOT
from tests.support.worker_slots import starting, workers

STALL = "openguild_loop_stall_max_seconds"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Rendered:
    """A rendering that numbers its texts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> tuple[bytes, ...]:
        self.count += 1
        return b"# HELP x y\n# TYPE x gauge\n", b"x %d\n" % self.count


@pytest.mark.anyio
async def test_it_is_rendered_once_a_second() -> None:
    clock, rendered = Clock(), Rendered()
    exposition = Exposition(rendered, None, max_age_secs=1.0, clock=clock)
    texts = {await exposition.whole() for _ in range(100)}
    assert (len(texts), rendered.count) == (1, 1)
    clock.now += 0.999
    assert await exposition.whole() in texts
    clock.now += 0.001
    assert await exposition.whole() not in texts
    assert rendered.count == 2


@pytest.mark.anyio
async def test_no_age_is_a_new_text_each_time() -> None:
    rendered = Rendered()
    exposition = Exposition(rendered, None, max_age_secs=0.0, clock=Clock())
    assert await exposition.whole() != await exposition.whole()


@pytest.mark.anyio
async def test_all_workers_are_asked_once_for_all_who_wait() -> None:
    clock, here, there = Clock(), Rendered(), Rendered()
    texts: list[bytes] = []
    async with workers(2) as slots:
        first = Exposition(here, slots[0], max_age_secs=1.0, clock=clock)
        second = Exposition(there, slots[1], max_age_secs=1.0, clock=clock)

        async def scrape() -> None:
            texts.append(await first.whole())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(slots[0].serve, first.own, starting, lambda successful: None)
            tasks.start_soon(slots[1].serve, second.own, starting, lambda successful: None)
            async with anyio.create_task_group() as scrapes:
                for _ in range(20):
                    scrapes.start_soon(scrape)
            assert len(set(texts)) == 1
            assert b'x{worker="1"} 1' in texts[0]
            clock.now += 1.0
            await scrape()
            tasks.cancel_scope.cancel()
    assert texts[-1] != texts[0]
    assert (here.count, there.count) == (2, 2)


def test_the_longest_stall_is_there_for_every_reader() -> None:
    clock = Clock()
    metrics = Metrics("0", native_ring=False, clock=clock)

    def longest() -> float:
        (line,) = (line for line in metrics.render().decode().splitlines() if line.startswith(f"{STALL} "))
        return float(line.split()[1])

    metrics.loop_stall(0.5)
    assert [longest(), longest()] == [0.5, 0.5]
    clock.now += 60.0
    metrics.loop_stall(0.25)
    assert longest() == 0.5, "a minute at least"
    clock.now += 60.0
    assert longest() == 0.25, "two minutes at most"
    clock.now += 600.0
    assert longest() == 0.0, "nothing was added meanwhile"


def test_the_pieces_are_what_the_library_would_write() -> None:
    metrics = Metrics("0", native_ring=False)
    for number in range(20):
        metrics.http_request(f"/{number}", 200, 0.1)

    def lines(text: bytes) -> list[str]:
        """Without what changes by itself."""
        return [line for line in text.decode().splitlines() if not line.startswith(("process_", "python_gc_"))]

    pieces = list(metrics.chunks())
    assert max(piece.count(b"\n") for piece in pieces) <= CHUNK_SAMPLES + 2
    assert lines(b"".join(pieces)) == lines(generate_latest(metrics.registry))


def test_the_process_s_own_metrics_are_the_library_s() -> None:
    """In a process of its own: here threads of other tests may wait in accept, which takes descriptors that are not listed."""
    command = [sys.executable, "-m", "tests.runtime.server.process_metrics"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    ours, theirs = json.loads(told)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 6
    for key, value in ours.items():
        assert abs(value - theirs[key]) <= 0.05 * value + 1, key

"""`make bench-load`: the fan-out against its peers, alternating, then the whole server, in one run."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.lab.figures import ratio, rounded
from benchmarks.lab.progress import Progress
from benchmarks.lab.results import stamped
from benchmarks.load import measures
from benchmarks.load.actors import RealServer, build

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9)
Result = dict[str, Any]


def alternating(names: list[str], rounds: int, run: Callable[[str], Result]) -> dict[str, list[Result]]:
    """Run each peer once per round, with every other round in reverse, so that a slow minute of the machine affects all."""
    found: dict[str, list[Result]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            found[name].append(run(name))
    return found


def middle(lines: list[Result]) -> Result:
    """Return medians over the rounds, with lowest and highest CPU (`spread`)."""
    found: Result = {
        key: rounded(statistics.median(line[key] for line in lines))
        for key, value in lines[0].items()
        if isinstance(value, int | float)
    }
    if "latencies" in lines[0]:
        found["percentiles_ms"] = percentiles([value for line in lines for value in line["latencies"]])
    if "cpu_us" in found:
        found["spread"] = [rounded(function(line["cpu_us"] for line in lines)) for function in (min, max)]
    return found


def paired(ours: list[Result], theirs: list[Result], key: str) -> Result:
    """Return the ratio of pairs measured in turn, with its interval."""
    return ratio([line[key] for line in ours], [line[key] for line in theirs])


def percentiles(secs: list[float]) -> dict[str, float]:
    """Return milliseconds by percentile, for the plot of latencies."""
    ordered = sorted(secs)
    return {
        f"{part:g}": rounded(ordered[min(len(ordered) - 1, int(part / 100 * len(ordered)))] * 1e3)
        for part in PERCENTILES
    }


def run(quick: bool, rounds: int | None) -> Result:
    """Measure everything, in `rounds` rounds, or the default number for None."""
    names, lacking = build()
    rounds, subscribers = rounds or (1 if quick else 3), 300 if quick else 1_000
    idle, crowd = (1_000, 2_000) if quick else (10_000, 15_000)
    channels = 500 if quick else 5_000
    scales = (10, 100, 1_000) if quick else (10, 100, 1_000, 5_000)
    progress = Progress(2 * rounds * len(names) + 2 * len(scales) + 7 * rounds + 7)

    def fanout(name: str) -> Result:
        progress.step(f"fan-out: {name}")
        return measures.broadcast(name, subscribers, 40, 40 if quick else 120, 1)

    def burst(name: str) -> Result:
        progress.step(f"burst: {name}")
        return measures.broadcast(name, subscribers, 2, 3, 200)

    results: Result = stamped(
        {"subscribers": subscribers, "crowd": crowd, "channels": channels, "rounds": rounds, "skipped": lacking}
    )
    turns = alternating(names, rounds, fanout)
    results["fanout"] = {name: middle(lines) for name, lines in turns.items()}
    results["ratios"] = {
        f"fan-out, CPU: {name}": paired(turns["openguild"], lines, "cpu_us")
        for name, lines in turns.items()
        if name != "openguild"
    }
    results["burst"] = {name: middle(lines) for name, lines in alternating(names, rounds, burst).items()}
    results["scaling"] = {"openguild": {}, "floor": {}}
    for count in scales:
        for name in results["scaling"]:
            progress.step(f"scaling: {name}, {count}")
            messages = max(20, min(400, 100_000 // count))
            results["scaling"][name][str(count)] = measures.broadcast(name, count, 20_000 / count, messages, 1)[
                "cpu_us"
            ]
    progress.step("rings")
    results["ring"], results["native"] = measures.ring_scaling(), measures.ring_native_against_pure()
    progress.step("many channels")
    results["many_channels"] = measures.many_channels(channels, 3)
    results["memory"] = {}
    for name in ("picows", "websockets", "node-ws", "anyio-tasks"):
        progress.step(f"memory: {name}")
        results["memory"][name] = (
            measures.quietly(lambda name=name: measures.memory_of_peer(name, idle)) if name in names else None
        )
    with tempfile.TemporaryDirectory() as directory:
        server = RealServer(Path(directory))
        try:
            progress.step("memory: openguild")
            results["memory"]["server"] = measures.memory_of_server(server, idle)
            floors, wholes, bares, setups = [], [], [], []
            for _ in range(rounds):  # in turn, because the machine's speed changes from minute to minute
                floors.append(fanout("floor"))
                progress.step("whole server")
                wholes.append(measures.whole_server(server, subscribers, 40, 40 if quick else 120))
                bares.append(fanout("websockets"))
                progress.step("set-up")
                setups.append(measures.setup_with_replay(server, subscribers))
            results["whole"] = middle(wholes)
            against_floor = paired(wholes, floors, "cpu_us")
            results["whole_ratio"] = against_floor["ratio"]
            results["ratios"]["whole server, CPU: floor"] = against_floor
            results["setup"] = middle(setups) | {"ratio": paired(setups, bares, "connects_per_sec")["ratio"]}
            stalls = []
            for _ in range(rounds):
                progress.step("stall")
                stalls.append(measures.stall(server, crowd))
            results["stall"] = middle(stalls)
            slow: dict[str, list[Result]] = {"none": [], "one_percent": []}
            for _ in range(rounds):
                for name, fraction in (("none", 0.0), ("one_percent", 0.01)):
                    progress.step(f"stopped readers: {fraction:.0%}")
                    slow[name].append(measures.slow_readers(server, subscribers, 40, 200, fraction))
            ratios = paired(slow["one_percent"], slow["none"], "p99")
            results["slow"] = {name: middle(lines) for name, lines in slow.items()} | {"ratio": ratios["ratio"]}
        finally:
            server.close()
    progress.end()
    return results

"""Appends, replicas, workers, reconnect storms and outages: takes about five minutes. Results: benchmarks/results/cluster.md."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anyio

from benchmarks.cluster import appends, replicas
from benchmarks.lab.program import program
from benchmarks.lab.progress import Progress
from benchmarks.lab.results import RESULTS, require_writable, stamped, write
from benchmarks.lab.stamp import told
from benchmarks.load.actors import RealServer
from tests.scenarios.chaos.plan import Plan
from tests.scenarios.chaos.run import run_plan

LIMIT_SECS = 900


def run() -> dict[str, Any]:
    progress = Progress(6)
    results: dict[str, Any] = stamped({})
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        server = RealServer(directory)
        try:
            progress.step("appends")
            with replicas.two_workers(server, directory) as pair:
                results["appends"] = appends.measure(server, pair)
            progress.step("between replicas")
            results["between"] = replicas.between_replicas(server, directory)
            progress.step("workers")
            results["workers"] = replicas.workers(server, directory)
            progress.step("reconnect storm")
            results["storm"] = replicas.storm(server, directory)
            progress.step("NATS away for 60 s")
            results["nats_away"] = replicas.nats_away(server, directory)
        finally:
            server.close()
    with tempfile.TemporaryDirectory() as name:
        progress.step("rolling restart")
        plan = Plan(replicas=3, clients=300, posts=2_500, posts_per_sec=100, faults=("rolling restart",))
        results["rolling"] = asdict(anyio.run(run_plan, plan, Path(name)))
    progress.end()
    return results


def rows(results: dict[str, Any]) -> list[tuple[str, str, str, bool | None]]:
    found, between, rolling = results["appends"], results["between"], results["rolling"]
    storm, away, two = results["storm"], results["nats_away"], results["workers"]
    other, both = between["other"], away["both"]
    return [
        ("durable posts over HTTP, 256 posters, two workers, against one INSERT per commit",
         f"{found['http_two_workers_ratio']:.2f}", ">= 1.5", found["http_two_workers_ratio"] >= 1.5),
        ("the same with one process, which is one core", f"{found['http_ratio']:.2f}", "reported", None),
        ("the commit queue alone against the same", f"{found['queue_ratio']:.1f}", ">= 8", found["queue_ratio"] >= 8),
        ("deliveries per second, two workers against one", f"{two['ratio']:.2f}", "reported", None),
        ("the load generator's own share of a core, one and two workers",
         f"{two['1']['generator_cpu_share']:.2f}, {two['2']['generator_cpu_share']:.2f}", "reported", None),
        ("post to delivery on another replica, p50 against the same replica",
         f"{other['p50_ms'] / between['same']['p50_ms']:.2f}", "reported", None),
        ("post to delivery on another replica, p99, 200 posts/s, ms", f"{other['p99_ms']:.1f}", "< 50",
         other["p99_ms"] < 50),
        ("rolling restart of 3 replicas, 300 streams: lost, repeated", f"{rolling['lost']}, {rolling['repeated']}", "0, 0",
         rolling["lost"] == rolling["repeated"] == 0),
        ("longest silence of any stream in it, s", f"{rolling['longest_silence_secs']:.1f}", "reported", None),
        (f"reconnect storm, {storm['clients']} streams over {storm['window_secs']:.0f} s: all back after, s",
         f"{storm['secs']:.1f}", "all back", True),
        ("/health p99 meanwhile, ms", f"{storm['health_p99_ms']:.0f}", "< 100", storm["health_p99_ms"] < 100),
        ("NATS away for 60 s: latest delivery on the other replica, s", f"{away['longest_secs']:.2f}", "<= 3",
         away["longest_secs"] <= 3 and away["frames"] == [away["posts"]]),
        ("the same when both replicas take posts, s", f"{both['longest_secs']:.2f}", "<= 3",
         both["longest_secs"] <= 3 and both["frames"] == [both["posts"]]),
    ]  # fmt: skip


def markdown(results: dict[str, Any]) -> str:
    lines = ["| measure | value | asked for | reached |", "| --- | --- | --- | --- |"]
    for name, value, wanted, reached in rows(results):
        lines.append(f"| {name} | {value} | {wanted} | {'' if reached is None else 'yes' if reached else '**no**'} |")
    return "\n".join([*lines, "", told(results["stamp"])]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--save", action="store_true", help="keep the results in cluster.json and cluster.md")
    given = parser.parse_args()
    signal.alarm(LIMIT_SECS)
    if given.save:
        require_writable()
    results = run()
    sys.stdout.write(markdown(results))
    if given.save:
        write("cluster", results)
        (RESULTS / "cluster.md").write_text(markdown(results))
    return 0


if __name__ == "__main__":
    program(main)

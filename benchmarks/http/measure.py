"""Measures side by side: the servers take turns with a window of each job, and the CPU of their processes is counted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.http.jobs import JOBS, Household
from benchmarks.http.servers import Target, running
from benchmarks.http.wire import request
from benchmarks.load.actors import cpu_secs

ROOT = Path(__file__).parents[2]
QUICK = 10  # divides the size of a window

Window = dict[str, float]


def window(target: Target, household: Household | None, name: str, count: int, directory: Path) -> Window:
    """Run one window of a job. Return the server's CPU microseconds per request, and the figures of the driver."""
    job = JOBS[name]
    requests = job.requests(household, count) if household is not None else [request("GET", "/version")]
    path = directory / "requests.json"
    path.write_text(json.dumps([data.decode("latin-1") for data in requests]))
    before = cpu_secs(target.pid)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.http.driver", str(target.port), str(job.connections), str(count), str(path)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return {"cpu_us": (cpu_secs(target.pid) - before) / count * 1e6, **json.loads(done.stdout)}


def has_users(server: str, jobs: Sequence[str]) -> bool:
    """Return whether the server does any of the jobs that need users."""
    return any(server in JOBS[name].servers for name in jobs if name != "version")


def measure(
    names: Sequence[str], jobs: Sequence[str], rounds: int, quick: bool, directory: Path, step: Callable[[str], None]
) -> dict[str, dict[str, list[Window]]]:
    """Return the windows of each job and server, one per round, without a first round as warm-up."""
    found: dict[str, dict[str, list[Window]]] = {job: {} for job in jobs}
    with running(names, directory) as targets:
        households: dict[str, Any] = {}
        for name, target in targets.items():
            step(f"{name}: users, channels, messages")
            households[name] = Household(target) if has_users(name, jobs) else None
        forwards = list(targets.items())
        for turn in range(rounds + 1):
            for job in jobs:
                for name, target in forwards if turn % 2 else reversed(forwards):
                    if name not in JOBS[job].servers:
                        continue
                    step(f"{job}: {name}")
                    count = JOBS[job].count // (QUICK if quick or turn == 0 else 1)
                    line = window(target, households[name], job, max(count, 8), directory)
                    if turn:
                        found[job].setdefault(name, []).append(line)
    return found

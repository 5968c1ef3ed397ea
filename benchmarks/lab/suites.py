"""The suites that `python -m benchmarks` knows: what each measures, its peers, and how it is run. Imports nothing heavy."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]


class Asked(NamedTuple):
    """What the command line asks of a suite. `only`: peers, and jobs where the suite has some."""

    only: tuple[str, ...]
    quick: bool
    rounds: int | None
    save: bool


class Suite(NamedTuple):
    """`module`: has `peers()`, the peers with what each lacks to run here, and `run(asked)`. None: `command` alone."""

    text: str
    module: str | None = None
    command: tuple[str, ...] = ()


SUITES = {
    "load": Suite(
        "fan-out to WebSocket subscribers, against its peers; then the whole server: 15 minutes with all",
        "benchmarks.load.suite",
    ),
    "http": Suite(
        "register, login, post, pages, unread, sync: CPU of the server against FastAPI's", "benchmarks.http.suite"
    ),
    "core": Suite("ring, hub, framing, parsing: pure Python and Cython", command=("make", "bench-core")),
    "budget": Suite("instructions of a post, a page, a delivery", command=(sys.executable, "-m", "benchmarks.budget")),
    "cluster": Suite("appends, replicas, storms, outages", command=(sys.executable, "-m", "benchmarks.cluster")),
    "gateway": Suite("gateway sockets in one process", command=(sys.executable, "-m", "benchmarks.gateway")),
    "idle": Suite(
        "very many idle subscribers of one process, and one message to all of them: two minutes",
        command=(sys.executable, "-m", "benchmarks.idle"),
    ),
    "search": Suite(
        "searches in a million messages: half an hour", command=(sys.executable, "-m", "benchmarks.search")
    ),
    "capacity": Suite(
        "what numbers of users need, from unit costs: two minutes to measure them",
        command=(sys.executable, "-m", "benchmarks.capacity", "--measure"),
    ),
    "hostile": Suite("slow and hostile peers", command=(sys.executable, "-m", "benchmarks.hostile")),
}


def peers(suite: Suite) -> dict[str, str | None]:
    """Return the peers of a suite, each with what it lacks to run here. Raises ModuleNotFoundError without the extra."""
    return {} if suite.module is None else dict(importlib.import_module(suite.module).peers())


def run(suite: Suite, asked: Asked, more: Sequence[str] = ()) -> int:
    """Run a suite; the exit status."""
    if suite.module is None:
        return subprocess.run([*suite.command, *more], cwd=ROOT, check=False).returncode
    module: Any = importlib.import_module(suite.module)
    return int(module.run(asked))


def chosen(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """Return the names that `only` asks for, all where it asks for none of them."""
    return [name for name in names if name in only] or list(names)

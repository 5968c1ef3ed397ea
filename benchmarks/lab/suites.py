"""The suites that `python -m benchmarks` knows: what each measures, its peers, and how it is run. Imports nothing heavy."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.lab.program import RefusedError
from benchmarks.lab.results import require_writable

ROOT = Path(__file__).parents[2]


class Asked(NamedTuple):
    """What the command line asks of a suite. `only`: peers, and jobs where the suite has some."""

    only: tuple[str, ...]
    quick: bool
    rounds: int | None
    save: bool


class Suite(NamedTuple):
    """`module`: has `peers()`, the peers with what each lacks to run here, and `run(asked)`.

    Without one, `command` runs alone: `saves` if it takes --save, `quick`, what makes it quick.
    """

    text: str
    module: str | None = None
    command: tuple[str, ...] = ()
    saves: bool = False
    quick: tuple[str, ...] = ()


SUITES = {
    "load": Suite(
        "fan-out to WebSocket subscribers, against its peers; then the whole server: 15 minutes with all",
        "benchmarks.load.suite",
    ),
    "http": Suite(
        "posts, pages, logins and more: CPU of the server against FastAPI's: six minutes", "benchmarks.http.suite"
    ),
    "core": Suite("ring, hub, framing, parsing: pure Python and Cython: a minute", command=("make", "bench-core")),
    "budget": Suite(
        "instructions of a post, a page, a delivery: three minutes",
        command=(sys.executable, "-m", "benchmarks.budget"),
        saves=True,
    ),
    "cluster": Suite(
        "appends, replicas, storms, outages: five minutes",
        command=(sys.executable, "-m", "benchmarks.cluster"),
        saves=True,
    ),
    "gateway": Suite(
        "gateway sockets in one process",
        command=(sys.executable, "-m", "benchmarks.gateway"),
        saves=True,
        quick=("--sockets", "20"),
    ),
    "idle": Suite(
        "very many idle subscribers of one process, and one message to all of them: two minutes",
        command=(sys.executable, "-m", "benchmarks.idle"),
        saves=True,
        quick=("--subscribers", "2000"),
    ),
    "federation": Suite(
        "mirrors of a guild: deliveries, latency against two replicas, posts beside a catch-up",
        command=(sys.executable, "-m", "benchmarks.federation"),
        saves=True,
        quick=("--quick",),
    ),
    "search": Suite(
        "searches in a million messages: half an hour",
        command=(sys.executable, "-m", "benchmarks.search"),
        saves=True,
        quick=("--messages", "10000"),
    ),
    "capacity": Suite(
        "what numbers of users need, from unit costs: two minutes to measure them",
        command=(sys.executable, "-m", "benchmarks.capacity", "--measure"),
        saves=True,
        quick=("--secs", "1"),
    ),
    "hostile": Suite(
        "slow and hostile peers: two minutes", command=(sys.executable, "-m", "benchmarks.hostile"), saves=True
    ),
    "endurance": Suite(
        "what is left after a million connections and minutes of abuse", command=("make", "bench-endurance")
    ),
}


def jobs(suite: Suite) -> tuple[str, ...]:
    """Return the jobs of a suite, which --only takes beside its peers."""
    return () if suite.module is None else getattr(importlib.import_module(suite.module), "JOBS", ())


def peers(suite: Suite) -> dict[str, str | None]:
    """Return the peers of a suite, each with what it lacks to run here. Raises ModuleNotFoundError without the extra."""
    return {} if suite.module is None else dict(importlib.import_module(suite.module).peers())


def run(name: str, asked: Asked) -> int:
    """Run a suite; the exit status. Raises RefusedError for what it cannot do."""
    if asked.quick and asked.save:
        raise RefusedError("--save keeps figures, and those of --quick are too rough to keep: leave one out")
    if asked.save and asked.rounds == 1:
        raise RefusedError("--save keeps intervals, and one round has none: leave one out")
    if asked.save:
        require_writable()
    suite = SUITES[name]
    if suite.module is None:
        command = [*suite.command, *_options(name, suite, asked)]
        os.chdir(ROOT)
        os.execvp(command[0], command)  # in place of this process, so that it gets the signals that are meant for it
    module: Any = importlib.import_module(suite.module)
    return int(module.run(asked))


def _options(name: str, suite: Suite, asked: Asked) -> list[str]:
    """Return what the command of a suite is told."""
    given = {
        "--only": bool(asked.only), "--rounds": asked.rounds is not None,
        "--quick": asked.quick and not suite.quick, "--save": asked.save and not suite.saves,
    }  # fmt: skip
    refused = [option for option, cannot in given.items() if cannot]
    if refused:
        raise RefusedError(f"{name} takes no {', '.join(refused)}: it runs {' '.join(suite.command)}")
    return [*(suite.quick if asked.quick else ()), *(["--save"] if asked.save else [])]


def require(only: Sequence[str], known: Sequence[str]) -> None:
    """Raise RefusedError where `only` has a name that is not known."""
    unknown = [name for name in only if name not in known]
    if unknown:
        raise RefusedError(f"there is no {', '.join(unknown)}; --only takes: {', '.join(known)}")


def chosen(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """Return the names that `only` asks for, all where it asks for none of them."""
    return [name for name in names if name in only] or list(names)

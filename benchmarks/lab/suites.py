"""The suites of `python -m benchmarks`: what each measures, its peers, and how to run it.

Suites are imported when they are used, so that listing them is fast.
"""

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
    """The options of the command line. `only` has names of peers and, if the suite has jobs, of jobs."""

    only: tuple[str, ...]
    quick: bool
    rounds: int | None
    save: bool


class Suite(NamedTuple):
    """A suite, which is either a module or a command.

    `module` has `peers()`, which returns each peer with what is missing to run it here, and `run(asked)`. If there is
    no module, `command` is run: `saves` if it accepts --save, and `quick` has the options for a quick run.
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
    """Return the jobs of a suite. --only accepts them as well as its peers."""
    return () if suite.module is None else getattr(importlib.import_module(suite.module), "JOBS", ())


def peers(suite: Suite) -> dict[str, str | None]:
    """Return the peers of a suite, each with what is missing to run it here, or None.

    Raises ModuleNotFoundError if the extra is not installed.
    """
    return {} if suite.module is None else dict(importlib.import_module(suite.module).peers())


def run(name: str, asked: Asked) -> int:
    """Run a suite and return the exit status. Raises RefusedError for options that it does not support."""
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
        os.execvp(command[0], command)  # replaces this process, so that the command gets its signals
    module: Any = importlib.import_module(suite.module)
    return int(module.run(asked))


def _options(name: str, suite: Suite, asked: Asked) -> list[str]:
    """Return the options for the command of a suite. Raises RefusedError for those that it does not accept."""
    given = {
        "--only": bool(asked.only), "--rounds": asked.rounds is not None,
        "--quick": asked.quick and not suite.quick, "--save": asked.save and not suite.saves,
    }  # fmt: skip
    refused = [option for option, cannot in given.items() if cannot]
    if refused:
        raise RefusedError(f"{name} takes no {', '.join(refused)}: it runs {' '.join(suite.command)}")
    return [*(suite.quick if asked.quick else ()), *(["--save"] if asked.save else [])]


def require(only: Sequence[str], known: Sequence[str]) -> None:
    """Raise RefusedError if `only` has a name that is not in `known`."""
    unknown = [name for name in only if name not in known]
    if unknown:
        raise RefusedError(f"there is no {', '.join(unknown)}; --only takes: {', '.join(known)}")


def chosen(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """Return the names that are in `only`, or all names if none is."""
    return [name for name in names if name in only] or list(names)

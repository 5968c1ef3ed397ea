"""Very many idle subscribers of one process: the cost of each, and of one message to all.

`python -m benchmarks.idle [--subscribers 100000] [--save]` takes about two minutes, on loopback only. A whole server gets as many
as the limit of open files allows (raise it with `ulimit -Hn`); the fan-out of one message is measured with all subscribers, on
fewer sockets.
"""

from __future__ import annotations

import argparse
import signal
from typing import Any

from benchmarks.idle import ring, server
from benchmarks.lab import results as store
from benchmarks.lab.figures import rounded
from benchmarks.lab.program import positive, program

LIMIT_SECS = 600


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle", description=__doc__)
    parser.add_argument("--subscribers", type=positive, default=100_000)
    parser.add_argument("--save", action="store_true", help="keep the figures in benchmarks/results/idle.json")
    given = parser.parse_args()
    if given.save:
        store.require_writable()
    signal.alarm(LIMIT_SECS)
    possible = server.possible(given.subscribers)
    if possible < given.subscribers:
        print(f"whole server: {possible:,} subscribers, as the limit of open files leaves room for no more")
    results: dict[str, Any] = store.stamped({"asked": given.subscribers})
    results["server"] = _shown("whole server", server.measure(possible))
    counts = [count for count in (1_000, 10_000) if count < given.subscribers] + [given.subscribers]
    results["ring"] = [_shown("one message through the flusher", ring.measure(count)) for count in counts]
    if given.save:
        store.write("idle", results)


def _shown(what: str, figures: dict[str, Any]) -> dict[str, Any]:
    found = {name: rounded(figure) if isinstance(figure, float) else figure for name, figure in figures.items()}
    print(what)
    for name, figure in found.items():
        print(f"  {name}: {figure:,g}", flush=True)
    return found


if __name__ == "__main__":
    program(main)

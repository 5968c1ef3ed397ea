"""The cost of a federation: `python -m benchmarks.federation [--quick] [--save]`.

`delivery`: the work of an owner's process for its mirrors. `latency`: from a post on one server to its delivery on another.
`neighbours`: latencies of an owner's clients while a mirror catches up. Each is also a separate program with more options.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import anyio

from benchmarks.federation import delivery, latency, neighbours
from benchmarks.lab.program import program
from benchmarks.lab.progress import Progress
from benchmarks.lab.results import require_writable, stamped, write


def parts(*, quick: bool) -> dict[str, Callable[[], Any]]:
    """Return the measurements by name."""
    peers, events, secs = (20, 2_000, 1.0) if quick else (1_000, 100_000, 10.0)
    return {
        "delivery": lambda: delivery.measured(peers, events, None),
        "latency": lambda: anyio.run(latency.measured, 20.0 if quick else 100.0, secs),
        "neighbours": lambda: anyio.run(neighbours.measured, events, 50.0),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.federation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="few peers and events: does it run at all?")
    parser.add_argument("--save", action="store_true", help="keep the figures in benchmarks/results/federation.json")
    given = parser.parse_args()
    if given.save:
        require_writable()
    results: dict[str, Any] = stamped({})
    wanted = parts(quick=given.quick)
    progress = Progress(len(wanted))
    for name, measure in wanted.items():
        progress.step(name)
        results[name] = measure()
        sys.stdout.write(f"{name} {json.dumps(results[name], indent=1)}\n")
        sys.stdout.flush()
    progress.end()
    if given.save:
        write("federation", results)
    return 0


if __name__ == "__main__":
    program(main)

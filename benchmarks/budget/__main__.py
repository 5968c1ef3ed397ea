"""`make budget`: what a request and a delivery may cost, in instructions of the server process, which no other load changes.

`python -m benchmarks.budget [--save]`. The whole server runs under valgrind's callgrind, on a real PostgreSQL and nats-server. The
counts are divided by those of a fixed piece of Python in the same process, so that another build of the interpreter changes
little. Exit status 1 where one costs more than 5% (a delivery: 20%) above `benchmarks/results/budget.json`; `--save` keeps the
new counts there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from benchmarks.budget.counted import missing
from benchmarks.lab import results
from benchmarks.lab.program import program

Measure: TypeAlias = Callable[[Path, Callable[[str], None]], tuple[dict[str, float], int]]
TOLERANCE = 0.05
TOLERANCES = {"delivery": 0.2}  # it includes a varying number of turns of the loop


def compared(found: dict[str, float], allowed: dict[str, float]) -> tuple[list[str], list[str]]:
    """Return a line for each measure, and the names of those that exceed `allowed` by more than the tolerance."""
    lines, over = [f"{'instructions':20}{'found':>12}{'budget':>12}"], list[str]()
    for name, cost in found.items():
        change = cost / allowed[name] - 1 if name in allowed else float("inf")
        tolerance = TOLERANCES.get(name, TOLERANCE)
        word = "  OVER" if change > tolerance else "  less: save it" if change < -tolerance else ""
        lines.append(f"{name:20}{cost:12,.0f}{allowed.get(name, 0):12,.0f}{change:+8.1%}{word}")
        if change > tolerance:
            over.append(name)
    return lines, over


def main(arguments: Sequence[str] | None = None, measure: Measure | None = None) -> int:
    """Run the benchmark and return the exit status. `measure` replaces the count with callgrind."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budget", description=__doc__)
    parser.add_argument("--save", action="store_true", help="keep these counts as the budget")
    given = parser.parse_args(arguments)
    lacking = missing() if measure is None else None
    if lacking is not None:
        print(f"budget: skipped, {lacking}")
        return 0
    if given.save:
        results.require_writable()
    if measure is None:
        from benchmarks.budget.measures import measure

    stamp = results.stamped({})
    with tempfile.TemporaryDirectory() as directory:
        counts, unit = measure(Path(directory), lambda what: print(f"budget: {what}", file=sys.stderr, flush=True))
    if given.save:
        kept = {
            "python": platform.python_version(),
            "unit": unit,
            "instructions": {n: round(c) for n, c in counts.items()},
        }
        results.write("budget", stamp | kept)
    budget = json.loads((results.RESULTS / "budget.json").read_text())
    found = {name: count * budget["unit"] / unit for name, count in counts.items()}
    lines, over = compared(found, budget["instructions"])
    print("\n".join(lines))
    print(
        f"The yardstick takes {unit:,} here and {budget['unit']:,} where the budget was made (Python {budget['python']})."
    )
    if over:
        print(f"budget: too much above it: {', '.join(over)}. If it is meant: make budget SAVE=--save")
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        if load > cores:
            print(
                f"budget: the load is {load:.1f} on {cores} cores, which alone adds 5 to 12% to some. Count again on a calm one"
            )
    return 1 if over else 0


if __name__ == "__main__":
    program(main)

"""`python -m tests.simulation.runtime --seeds N [--first K] [--plant NAME]`: run seeds on all cores up to the first violation."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tests.simulation.runtime.plants import PLANTS
from tests.simulation.runtime.scenario import Report, no_plant, run_seed

ROOT = Path(__file__).resolve().parents[3]


def replay_command(seed: int, plant: str | None = None) -> str:
    """Return the shell command that runs this seed again from the checkout."""
    python = Path(sys.executable)
    if python.is_relative_to(ROOT):
        python = python.relative_to(ROOT)
    planted = f" --plant {plant}" if plant else ""
    return f"PYTHONPATH=. {shlex.quote(str(python))} -m tests.simulation.runtime --first {seed} --seeds 1{planted}"


def run_one(plant: str | None, seed: int) -> Report:
    return run_seed(seed, PLANTS[plant] if plant else no_plant)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.runtime")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--plant", choices=sorted(PLANTS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    started = time.monotonic()
    totals = [0, 0, 0, 0]
    with ProcessPoolExecutor(options.jobs) as pool:
        seeds = range(options.first, options.first + options.seeds)
        for done, report in enumerate(pool.map(partial(run_one, options.plant), seeds, chunksize=8), start=1):
            found = (1, report.posts, report.deliveries, report.crashes)
            totals = [total + one for total, one in zip(totals, found, strict=True)]
            if report.violations:
                for line in report.violations:
                    sys.stdout.write(f"seed {report.seed}: {line}\n")
                sys.stdout.write(f"replay: {replay_command(report.seed, options.plant)}\n")
                pool.shutdown(cancel_futures=True)
                return 1
            if sys.stdout.isatty() and done % 20 == 0:
                sys.stdout.write(f"\r{done}/{options.seeds} ")
                sys.stdout.flush()
    sys.stdout.write(
        "{} seeds, {} acknowledged posts, {} deliveries, {} crashes: no violation".format(*totals)
        + f", {time.monotonic() - started:.0f} s\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m tests.simulation --seeds N [--first K] [--plant NAME]`: run seeds on all cores, stop at the first violation."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tests.simulation.plants import PLANTS
from tests.simulation.scenario import Report, no_plant, run_seed

ROOT = Path(__file__).resolve().parents[2]
COUNTED = ("posts", "changes", "deliveries", "notifications", "reconnects", "crashes", "restores")


def replay_command(seed: int, plant: str | None = None) -> str:
    """Return the shell command that runs this seed again from the checkout."""
    python = Path(sys.executable)
    if python.is_relative_to(ROOT):
        python = python.relative_to(ROOT)
    planted = f" --plant {plant}" if plant else ""
    return f"PYTHONPATH=. {shlex.quote(str(python))} -m tests.simulation --first {seed} --seeds 1{planted}"


def run_one(plant: str | None, seed: int) -> Report:
    return run_seed(seed, PLANTS[plant] if plant else no_plant)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--plant", choices=sorted(PLANTS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    started = time.monotonic()
    totals = dict.fromkeys(COUNTED, 0)
    with ProcessPoolExecutor(options.jobs) as pool:
        seeds = range(options.first, options.first + options.seeds)
        for done, report in enumerate(pool.map(partial(run_one, options.plant), seeds, chunksize=8), start=1):
            for name in COUNTED:
                totals[name] += getattr(report, name)
            if report.violations:
                for line in report.violations:
                    sys.stdout.write(f"seed {report.seed}: {line}\n")
                sys.stdout.write(f"replay: {replay_command(report.seed, options.plant)}\n")
                pool.shutdown(cancel_futures=True)
                return 1
            if sys.stdout.isatty() and done % 20 == 0:
                sys.stdout.write(f"\r{done}/{options.seeds} ")
                sys.stdout.flush()
    counted = ", ".join(f"{count} {name}" for name, count in totals.items())
    secs = time.monotonic() - started
    sys.stdout.write(f"{options.seeds} seeds, {counted}: no violation, {secs:.0f} s\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

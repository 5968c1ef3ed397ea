"""`python -m tests.simulation.federation --seeds N [--first K] [--jobs J] [--plant NAME] [--all]`: run seeds on all cores.

Stops at the first violation, except with `--all`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tests.simulation.federation.plants import PLANTS
from tests.simulation.federation.scenario import Report, no_plant, run_seed

ROOT = Path(__file__).resolve().parents[3]
COUNTED = ("posts", "requests", "delivered", "crashes", "restores")


def replay_command(seed: int, plant: str | None = None) -> str:
    """Return the shell command that runs this seed again from the checkout."""
    python = Path(sys.executable)
    if python.is_relative_to(ROOT):
        python = python.relative_to(ROOT)
    planted = f" --plant {plant}" if plant else ""
    return f"PYTHONPATH=. {shlex.quote(str(python))} -m tests.simulation.federation --first {seed} --seeds 1{planted}"


def run_one(plant: str | None, seed: int) -> Report:
    return run_seed(seed, PLANTS[plant] if plant else no_plant)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.federation")
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--plant", choices=sorted(PLANTS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--all", action="store_true", help="go on after a violation")
    options = parser.parse_args()
    started = time.monotonic()
    totals = dict.fromkeys(COUNTED, 0)
    hours, wrong = 0.0, 0
    with ProcessPoolExecutor(options.jobs) as pool:
        seeds = range(options.first, options.first + options.seeds)
        for report in pool.map(partial(run_one, options.plant), seeds, chunksize=4):
            hours += report.hours
            for name in COUNTED:
                totals[name] += getattr(report, name)
            if report.violations:
                wrong += 1
                for line in report.violations:
                    sys.stdout.write(f"seed {report.seed}: {line}\n")
                sys.stdout.write(f"replay: {replay_command(report.seed, options.plant)}\n")
                sys.stdout.flush()
                if not options.all:
                    pool.shutdown(cancel_futures=True)
                    return 1
    counted = ", ".join(f"{count} {name}" for name, count in totals.items())
    secs = time.monotonic() - started
    found = f"{wrong} with violations" if wrong else "no violation"
    sys.stdout.write(f"{options.seeds} seeds, {counted}, {hours:.0f} hours away: {found}, {secs:.0f} s\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())

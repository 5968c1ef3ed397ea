"""The HTTP suite of `python -m benchmarks`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.http import report
from benchmarks.http.jobs import JOBS
from benchmarks.http.measure import measure
from benchmarks.http.servers import NAMES, missing
from benchmarks.lab.program import RefusedError
from benchmarks.lab.progress import Progress
from benchmarks.lab.stamp import stamp
from benchmarks.lab.suites import Asked, chosen, require

ROUNDS = 5


def peers() -> dict[str, str | None]:
    """Return the servers, each with what is missing to run it, or None."""
    return {name: missing(name) for name in NAMES}


def run(asked: Asked) -> int:
    """Measure the requested jobs and servers, and save the results if asked. A partial run saves only ratios."""
    require(asked.only, (*NAMES, *JOBS))
    lacking = {name: why for name, why in peers().items() if why is not None}
    wanted = chosen(NAMES, asked.only)
    names, jobs = [name for name in wanted if name not in lacking], chosen(tuple(JOBS), asked.only)
    if not any(name in JOBS[job].servers for name in names for job in jobs):
        why = [f"{name}, {lacking.get(name, 'which does not do these jobs')}" for name in wanted]
        raise RefusedError(f"nothing to run: {'; '.join(why)}")
    rounds = asked.rounds or (2 if asked.quick else ROUNDS)
    windows = sum(len([name for name in names if name in JOBS[job].servers]) for job in jobs)
    progress = Progress(len(names) + (rounds + 1) * windows)
    made = stamp()  # before the run, for the machine's load and the commit at its start
    with tempfile.TemporaryDirectory() as directory:
        found = measure(names, jobs, rounds, asked.quick, Path(directory), progress.step)
    progress.end()
    results = report.results_of(found, {name: why for name, why in lacking.items() if name in wanted}, made)
    sys.stdout.write(report.markdown(results))
    if asked.save:
        report.save(results, whole=not asked.only)
    return 0

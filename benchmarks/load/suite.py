"""The fan-out suite of `python -m benchmarks`."""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.lab.figures import rounded, summary
from benchmarks.lab.progress import Progress
from benchmarks.lab.suites import Asked, chosen
from benchmarks.load.actors import COMMANDS, build, missing

KEYS = ("cpu_us", "p50", "p99")


def peers() -> dict[str, str | None]:
    """Return the peers, each with what it lacks."""
    return {name: missing(name) for name in COMMANDS}


def run(asked: Asked) -> int:
    """With `only`: the fan-out of those peers, in a table. Else everything that `make bench-load` measures."""
    if not asked.only:
        from benchmarks.load import whole
        from benchmarks.load import report

        results = whole.run(asked.quick)
        sys.stdout.write(report.markdown(results))
        if asked.save:
            report.write(results)
        return 0
    sys.stdout.write(_table(_fanout(asked)))
    for name in asked.only:
        if (lacking := peers().get(name, "no such peer")) is not None:
            print(f"not run: {name}, {lacking}")
    return 0


def _fanout(asked: Asked) -> dict[str, list[dict[str, Any]]]:
    """The windows of each peer, taking turns."""
    from benchmarks.load import measures

    names = chosen(build(), asked.only)
    rounds = asked.rounds or (2 if asked.quick else 5)
    subscribers, messages = (300, 40) if asked.quick else (1_000, 120)
    progress = Progress(rounds * len(names))
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            progress.step(name)
            found[name].append(measures.broadcast(name, subscribers, 40, messages, 1))
    progress.end()
    return found


def _table(found: dict[str, list[dict[str, Any]]]) -> str:
    """CPU per delivery and latencies, each with its lowest and highest."""
    rows = ["| peer | CPU per delivery, us | p50 ms | p99 ms |", "| --- | --- | --- | --- |"]
    for name, windows in found.items():
        cells = []
        for key in KEYS:
            line = summary([window[key] * (1 if key == "cpu_us" else 1e3) for window in windows])
            cells.append(f"{rounded(line['median']):g} ({line['low']:g} to {line['high']:g})")
        rows.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(rows) + "\n"

"""The fan-out suite of `python -m benchmarks`."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

from benchmarks.lab.figures import ratio, rounded, shown, summary
from benchmarks.lab.program import RefusedError
from benchmarks.lab.progress import Progress
from benchmarks.lab.stamp import stamp, told
from benchmarks.lab.suites import Asked, require
from benchmarks.load.actors import COMMANDS, FRAME_BYTES, build, missing

RATE = 40  # messages a second
KEYS = ("cpu_us", "p50", "p99")
OURS = "openguild"

Windows = dict[str, list[dict[str, Any]]]


def peers() -> dict[str, str | None]:
    """Return the peers, each with what is missing to run it, or None."""
    return {name: missing(name) for name in COMMANDS}


def run(asked: Asked) -> int:
    """With `only`, measure the fan-out of those peers and print a table; else measure all of `make bench-load`."""
    require(asked.only, tuple(COMMANDS))
    return _run_part(asked) if asked.only else _run_whole(asked)


def _run_whole(asked: Asked) -> int:
    from benchmarks.load import report, whole

    if (lacking := missing("floor")) is not None:
        raise RefusedError(f"all is measured against the floor: {lacking}; --only openguild,websockets runs without it")
    if asked.save and find_spec("matplotlib") is None:
        raise RefusedError("--save draws plots, and matplotlib is not installed: pip install -e '.[bench]'")
    results = whole.run(asked.quick, asked.rounds)
    sys.stdout.write(report.markdown(results))
    if asked.save:
        report.write(results)
    return 0


def _run_part(asked: Asked) -> int:
    if asked.save:
        raise RefusedError("--save keeps a run of all peers: leave --only out")
    built, lacking = build(asked.only)
    names = [name for name in built if name in asked.only]
    if names:
        begun = stamp()
        sys.stdout.write(f"{table(_fanout(names, asked))}\n{told(begun)}\n")
    for name in asked.only:
        if name not in names:
            print(f"Not run: {name}, {lacking[name]}.")
    return 0 if names else 1


def _fanout(names: list[str], asked: Asked) -> Windows:
    """Return the windows of each peer, measured in turn."""
    from benchmarks.load import measures

    rounds = asked.rounds or (2 if asked.quick else 5)
    subscribers, messages = (300, 40) if asked.quick else (1_000, 120)
    print(f"{subscribers:,} subscribers, {messages} messages of {FRAME_BYTES} bytes, {RATE} a second\n")
    progress = Progress(rounds * len(names))
    found: Windows = {name: [] for name in names}
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            progress.step(name)
            found[name].append(measures.broadcast(name, subscribers, RATE, messages, 1))
    progress.end()
    return found


def table(found: Windows) -> str:
    """Return a table with medians and ranges of CPU per delivery and latencies, and OpenGuild's ratio with its interval."""
    rounds = max(len(windows) for windows in found.values())
    rows = [
        "| peer | CPU per delivery, us | p50 ms | p99 ms | CPU, ours against it |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, windows in found.items():
        cells = []
        for key in KEYS:
            line = summary([window[key] * (1 if key == "cpu_us" else 1e3) for window in windows])
            spread = f" ({line['low']:g} to {line['high']:g})" if rounds > 1 else ""
            cells.append(f"{rounded(line['median']):g}{spread}")
        against = None if name == OURS or OURS not in found else _ratio(found[OURS], windows)
        rows.append(f"| {' | '.join([name, *cells, against or ''])} |")
    rows += [
        "",
        f"Medians of {rounds} rounds with the lowest and the highest."
        if rounds > 1
        else "One round, which has no interval.",
    ]
    if rounds > 1 and OURS in found and len(found) > 1:
        rows.append("Ratios are geometric means over the rounds, with their 95% intervals.")
    return "\n".join(rows) + "\n"


def _ratio(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    return shown(ratio([line["cpu_us"] for line in ours], [line["cpu_us"] for line in theirs]))

"""Results as JSON, as a Markdown table against the targets, and as plots."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parents[1] / "results"
LIBRARIES = (
    "openguild",
    "picows",
    "websockets",
    "aiohttp",
    "starlette",
    "uvicorn",
    "anyio",
    "uvloop",
    "asyncpg",
    "nats-py",
)
Results = dict[str, Any]


def machine() -> dict[str, Any]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "",
    )
    return {
        "cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version(),
        "node": _node(), "versions": {name: _version(name) for name in LIBRARIES},
    }  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _node() -> str | None:
    try:
        return subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def targets(results: Results) -> list[tuple[str, float | None, str, bool | None]]:
    """(measure, value, what is asked for, whether it is reached)."""
    fanout, burst = results["fanout"], results["burst"]
    best = max(
        (line["per_cpu_sec"] for name, line in burst.items() if name not in {"floor", "openguild", "node-ws"}),
        default=None,
    )
    rows: list[tuple[str, float | None, str, float]] = [
        ("fan-out path, CPU per delivery, against the bare send(2) loop", _ratio(fanout, "floor"), "<=", 1.15),
        ("the same against picows", _ratio(fanout, "picows"), "<=", 0.75),
        ("the same against websockets on uvloop", _ratio(fanout, "websockets"), "<=", 0.55),
        ("the same against Starlette on uvicorn", _ratio(fanout, "starlette"), "<=", 0.25),
        ("whole server, CPU per delivery, against the bare send(2) loop", results.get("whole_ratio"), "<=", 1.5),
        ("saturated burst, deliveries per CPU second, against the best Python peer",
         burst["openguild"]["per_cpu_sec"] / best if best else None, ">=", 5),
        ("publish into the ring, 100,000 subscribers against 10", results["ring"]["ratio"], "<=", 1.2),
        ("Cython against pure ring, publish and take, 10,000 subscribers", results["native"]["ratio"], ">=", 20),
        ("resident KiB per idle authenticated subscriber", results["memory"]["server"]["bytes"] / 1024, "<=", 7),
        ("set-up with a 50-event replay against websockets' bare accept", results["setup"]["ratio"], ">=", 0.5),
        ("longest loop stall, one message to 15,000 subscribers, ms", results["stall"]["stall_ms"], "<=", 10),
        ("p99 of the healthy with 1% stopped readers against none", results["slow"]["ratio"], "<=", 1.3),
    ]  # fmt: skip
    return [
        (
            name,
            value,
            f"{sign} {bound:g}",
            None if value is None else value <= bound if sign == "<=" else value >= bound,
        )
        for name, value, sign, bound in rows
    ]


def _ratio(lines: Results, other: str) -> float | None:
    return lines["openguild"]["cpu_us"] / lines[other]["cpu_us"] if other in lines else None


def markdown(results: Results) -> str:
    rows = ["| measure | value | asked for | reached |", "| --- | --- | --- | --- |"]
    for name, value, wanted, reached in targets(results):
        shown = "not run" if value is None else f"{value:.2f}"
        rows.append(f"| {name} | {shown} | {wanted} | {'' if reached is None else 'yes' if reached else '**no**'} |")
    rows += [
        "",
        "| peer | CPU per delivery | burst | p99 ms | KiB per idle subscriber |",
        "| --- | --- | --- | --- | --- |",
    ]
    floor, floor_burst = results["fanout"]["floor"]["cpu_us"], results["burst"]["floor"]["cpu_us"]
    for name, line in results["fanout"].items():
        memory = results["memory"].get(name)
        rows.append(
            f"| {name} | {line['cpu_us'] / floor:.2f} | {results['burst'][name]['cpu_us'] / floor_burst:.3f} "
            f"| {line['p99'] * 1e3:.1f} | {'' if memory is None else format(memory['bytes'] / 1024, '.1f')} |"
        )
    many = results["many_channels"]["cpu_us"] / results["fanout"]["openguild"]["cpu_us"]
    rows += [
        "",
        f"5,000 channels with 3 subscribers each: {many:.2f} times the CPU per delivery of one channel with 1,000.",
    ]
    rows += ["", "CPU as multiples of the bare send(2) loop in the same run."]
    return "\n".join(rows) + "\n"


def write(results: Results) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "load.json").write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    (RESULTS / "load.md").write_text(markdown(results))
    _bars(results)
    _latencies(results)
    _scaling(results)


def _bars(results: Results) -> None:
    names = list(results["fanout"])
    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    for axis, key, title in (
        (axes[0], "fanout", "one event at a time"),
        (axes[1], "burst", "burst as large as the ring"),
    ):
        floor = results[key]["floor"]["cpu_us"]
        axis.barh(names, [results[key][name]["cpu_us"] / floor for name in names])
        axis.set_title(f"CPU per delivery, {title}")
        axis.set_xlabel("multiples of a bare send(2) loop")
        axis.invert_yaxis()
        axis.axvline(1, color="grey", linewidth=0.8)
    figure.tight_layout()
    figure.savefig(RESULTS / "cpu.svg")
    figure, axis = plt.subplots(figsize=(6, 3.5))
    shown = {name: line["bytes"] / 1024 for name, line in results["memory"].items() if line}
    axis.barh(list(shown), list(shown.values()))
    axis.set_xlabel("resident KiB per idle subscriber")
    axis.invert_yaxis()
    figure.tight_layout()
    figure.savefig(RESULTS / "memory.svg")


def _latencies(results: Results) -> None:
    figure, axis = plt.subplots(figsize=(7, 4))
    for name, line in (*results["fanout"].items(), ("openguild, whole server", results["whole"])):
        values = sorted(value * 1e3 for value in line["latencies"])
        axis.plot(values, [place / len(values) for place in range(len(values))], label=name)
    axis.set_xlabel("delivery latency, ms")
    axis.set_ylabel("part of deliveries")
    axis.set_xlim(left=0)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(RESULTS / "latency.svg")


def _scaling(results: Results) -> None:
    figure, axis = plt.subplots(figsize=(6, 3.5))
    for name, line in results["scaling"].items():
        axis.plot([int(count) for count in line], list(line.values()), marker="o", label=name)
    axis.set_xscale("log")
    axis.set_xlabel("subscribers")
    axis.set_ylabel("CPU per delivery, microseconds")
    axis.set_ylim(bottom=0)
    axis.legend()
    figure.tight_layout()
    figure.savefig(RESULTS / "scaling.svg")

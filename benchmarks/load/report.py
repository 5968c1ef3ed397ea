"""Writes the results as JSON, as Markdown tables compared with the targets, and as plots."""

from __future__ import annotations

from typing import Any

from benchmarks.lab import results as store
from benchmarks.lab.figures import shown
from benchmarks.lab.stamp import told
from benchmarks.load.actors import COMMANDS

OTHERS = frozenset(
    {"floor", "openguild", "node-ws", "nchan", "mosquitto", "nats-server"}
)  # not Python, or OpenGuild itself
Results = dict[str, Any]


def targets(results: Results) -> list[tuple[str, float | None, str, bool | None]]:
    """Return rows (measure, value, target, whether it is reached). Ratios to peers are those of `results["ratios"]`."""
    burst, crowd = results["burst"], results.get("crowd", 15_000)
    best = max(
        (line["per_cpu_sec"] for name, line in burst.items() if name not in OTHERS),
        default=None,
    )
    rows: list[tuple[str, float | None, str, float]] = [
        ("fan-out path, CPU per delivery, against the bare send(2) loop", _ratio(results, "floor"), "<=", 1.15),
        ("the same against picows", _ratio(results, "picows"), "<=", 0.75),
        ("the same against websockets on uvloop", _ratio(results, "websockets"), "<=", 0.55),
        ("the same against Starlette on uvicorn", _ratio(results, "starlette"), "<=", 0.25),
        ("whole server, CPU per delivery, against the bare send(2) loop", results.get("whole_ratio"), "<=", 1.5),
        ("saturated burst, deliveries per CPU second, against the best Python peer",
         burst["openguild"]["per_cpu_sec"] / best if best else None, ">=", 5),
        ("publish into the ring, 100,000 subscribers against 10", results["ring"]["ratio"], "<=", 1.2),
        ("Cython against pure ring, publish and take, 10,000 subscribers", results["native"]["ratio"], ">=", 20),
        ("resident KiB per idle authenticated subscriber", results["memory"]["server"]["bytes"] / 1024, "<=", 7),
        ("set-up with a 50-event replay against websockets' bare accept", results["setup"]["ratio"], ">=", 0.5),
        (f"longest loop stall, one message to {crowd:,} subscribers, ms: at most", results["stall"]["stall_ms"], "<=", 10),
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


def _ratio(results: Results, other: str) -> float | None:
    """Return the mean ratio of pairs, or for older results, which lack it, the ratio of medians."""
    found, lines = results.get("ratios", {}).get(f"fan-out, CPU: {other}"), results["fanout"]
    if found is not None:
        return float(found["ratio"])
    return lines["openguild"]["cpu_us"] / lines[other]["cpu_us"] if other in lines else None


def markdown(results: Results) -> str:
    rows = ["| measure | value | asked for | reached |", "| --- | --- | --- | --- |"]
    for name, value, wanted, reached in targets(results):
        figure = "not run" if value is None else f"{value:.2f}"
        rows.append(f"| {name} | {figure} | {wanted} | {'' if reached is None else 'yes' if reached else '**no**'} |")
    rows += [
        "",
        "| peer | CPU per delivery | burst | p99 ms | KiB per idle subscriber | CPU, ours against it (95% interval) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    ratios = results.get("ratios", {})
    floor, floor_burst = results["fanout"]["floor"]["cpu_us"], results["burst"]["floor"]["cpu_us"]
    for name in (name for name in COMMANDS if name in results["fanout"]):
        line = results["fanout"][name]
        memory = results["memory"].get(name)
        rows.append(
            f"| {name} | {line['cpu_us'] / floor:.2f} | {results['burst'][name]['cpu_us'] / floor_burst:.3f} "
            f"| {line['p99'] * 1e3:.1f} | {'' if memory is None else format(memory['bytes'] / 1024, '.1f')} "
            f"| {shown(ratios.get(f'fan-out, CPU: {name}'))} |"
        )
    rounds = results.get("rounds", 3)
    turns = f"medians of {rounds} rounds" if rounds > 1 else "one round"
    many = results["many_channels"]["cpu_us"] / results["fanout"]["openguild"]["cpu_us"]
    rows += [
        "",
        f"{results.get('channels', 5_000):,} channels with 3 subscribers each: {many:.2f} times the CPU per delivery of one "
        f"channel with {results['subscribers']:,}.",
        "",
        f"CPU as multiples of the bare send(2) loop in the same run, {turns}. "
        "The peers have no tokens, rights, sequences or replay.",
        told(results["stamp"]),
    ]
    rows += [f"Not run: {name}, {why}." for name, why in results["skipped"].items()]
    return "\n".join(rows) + "\n"


def write(results: Results) -> None:
    """Write load.json, load.md, the plots and the ratios of the history."""
    from benchmarks.load import plots  # imports matplotlib

    store.write("load", results)
    (store.RESULTS / "load.md").write_text(markdown(results))
    store.remember("load", results, results["ratios"])
    plots.draw(results)

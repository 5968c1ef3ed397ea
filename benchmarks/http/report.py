"""Writes the HTTP benchmark's results as JSON and as Markdown tables, compared with the goals."""

from __future__ import annotations

from typing import Any

from benchmarks.http.jobs import JOBS
from benchmarks.http.measure import Window
from benchmarks.http.servers import NAMES
from benchmarks.lab.figures import ratio, shown, summary
from benchmarks.lab.results import RESULTS, remember, write
from benchmarks.lab.stamp import told

GOALS = {
    "post, CPU: fastapi": 0.4, "page, CPU: fastapi": 0.25, "version, CPU: bare-asgi": 2.0, "edit, CPU: our post": 1.2,
    "reaction, CPU: our post": 1.2,
}  # fmt: skip
WITHOUT = {
    "fastapi": "rate limits, request ids, security headers, metrics, idempotency, fan-out and search index",
    "bare-asgi": "anything but an answer; it writes no access log",
}
"""Features of OpenGuild that the peers lack."""
CHANGES = ("edit", "reaction")  # compared with OpenGuild's post
SECS = {"p50": "p50_ms", "p99": "p99_ms"}


def results_of(
    found: dict[str, dict[str, list[Window]]], skipped: dict[str, str], made: dict[str, Any]
) -> dict[str, Any]:
    """Return medians with spread by job and server, and the ratios of OpenGuild to each peer. `made` is the stamp."""
    jobs: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    for job, by_server in found.items():
        jobs[job] = {name: _summaries(windows) for name, windows in by_server.items()}
        ours = by_server.get("openguild")
        for name, theirs in by_server.items():
            if ours is not None and name != "openguild":
                for key, label in (("cpu_us", "CPU"), ("per_sec", "a second")):
                    pairs = [line[key] for line in ours], [line[key] for line in theirs]
                    ratios[f"{job}, {label}: {name}"] = ratio(*pairs)
    posts = found.get("post", {}).get("openguild")
    for job in CHANGES:
        changes = found.get(job, {}).get("openguild")
        if posts is not None and changes is not None:
            for key, label in (("cpu_us", "CPU"), ("p50", "p50")):
                ratios[f"{job}, {label}: our post"] = ratio(
                    [line[key] for line in changes], [line[key] for line in posts]
                )
    return {"stamp": made, "jobs": jobs, "ratios": ratios, "skipped": skipped}


def _summaries(windows: list[Window]) -> dict[str, Any]:
    return {
        SECS.get(key, key): summary([line[key] * (1e3 if key in SECS else 1) for line in windows]) for key in windows[0]
    }


def markdown(results: dict[str, Any]) -> str:
    """Return the results as Markdown tables."""
    rows = [
        "| job | server | CPU of the server, us | a second | p99 ms | CPU, ours against it | a second, ours against it |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for job in (job for job in JOBS if job in results["jobs"]):
        by_server = results["jobs"][job]
        for name in (name for name in NAMES if name in by_server):
            line = by_server[name]
            against = [shown(results["ratios"].get(f"{job}, {label}: {name}")) for label in ("CPU", "a second")]
            figures = [f"{line[key]['median']:,.4g}" for key in ("cpu_us", "per_sec", "p99_ms")]
            rows.append(f"| {' | '.join([job, name, *figures, *against])} |")
    goals = {measure: bound for measure, bound in GOALS.items() if measure in results["ratios"]}
    if goals:
        rows += ["", "| goal | asked for | found | reached |", "| --- | --- | --- | --- |"]
    for measure, bound in goals.items():
        found = results["ratios"][measure]
        reached = found["ratio"] <= bound
        rows.append(f"| {measure} | <= {bound:g} | {shown(found)} | {'yes' if reached else '**no**'} |")
    lines = [(name, line) for by_server in results["jobs"].values() for name, line in by_server.items()]
    servers, rounds = {name for name, _ in lines}, max(line["cpu_us"]["runs"] for _, line in lines)
    means = "; ratios are geometric means over the rounds, with their 95% intervals" if results["ratios"] else ""
    rows += ["", f"Medians of {rounds} rounds{means}." if rounds > 1 else "One round, which has no interval."]
    rows += [f"{name} is without {lacks}." for name, lacks in WITHOUT.items() if name in servers]
    rows += ["", told(results["stamp"])]
    rows += [f"Not run: {name}, {why}." for name, why in results["skipped"].items()]
    return "\n".join(rows) + "\n"


def save(results: dict[str, Any], *, whole: bool) -> None:
    """Append to the history, and after a `whole` run write results/http.json and http.md."""
    if whole:
        write("http", results)
        (RESULTS / "http.md").write_text(markdown(results))
    remember("http", results, results["ratios"])

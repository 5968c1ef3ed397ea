"""The plots of the fan-out benchmark. `python -m benchmarks.load.plots` redraws them from load.json and history.csv."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

from benchmarks.lab.results import RESULTS, history

matplotlib.use("svg")
import matplotlib.pyplot as plt  # after the choice of its backend
from matplotlib.axes import Axes

OURS, OTHERS, FLOOR = "#d1495b", "#7c98b3", "#444444"
STYLE = {"svg.hashsalt": "openguild", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
SHADES = ("#1f77b4", "#d1495b", "#2a9d5c", "#8a5a00", "#7b4fb5")  # of TRACKED
SHOWN_PERCENTILES = ("50", "75", "90", "95", "99", "99.9")
TRACKED = (
    "fan-out, CPU: floor",
    "whole server, CPU: floor",
    "post, CPU: fastapi",
    "page, CPU: fastapi",
    "version, CPU: bare-asgi",
)

Results = dict[str, Any]


def colour(name: str) -> str:
    return OURS if name.startswith("openguild") else FLOOR if name == "floor" else OTHERS


def draw(results: Results) -> None:
    """Draw all plots."""
    with matplotlib.rc_context(STYLE):
        _cpu(results)
        _memory(results)
        _latency(results)
        _scaling(results)
        _history()


def _save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def _bars(axis: Axes, values: Mapping[str, float], spreads: Mapping[str, Sequence[float]], unit: str) -> None:
    """Draw bars with their values, the best at the top, and the spread of the rounds as a line.

    On a logarithmic axis, which has no zero, the length of a bar would mean nothing, so points are drawn there.
    """
    names = sorted(values, key=lambda name: values[name], reverse=True)
    if axis.get_xscale() == "linear":
        axis.barh(names, [values[name] for name in names], color=[colour(name) for name in names], height=0.7)
    else:
        axis.scatter([values[name] for name in names], names, color=[colour(name) for name in names], s=45, zorder=3)
        axis.grid(axis="y", linewidth=0.3)
    furthest = max(values.values())
    for place, name in enumerate(names):
        value = values[name]
        low, high = spreads.get(name, (value, value))
        if low < high:
            axis.plot([low, high], [place, place], color="black", linewidth=1.2, marker="|", markersize=6)
        axis.annotate(f"{value:.3g}", (max(value, high), place), xytext=(5, 0), textcoords="offset points", va="center")
        furthest = max(furthest, high)
    for label in axis.get_yticklabels():
        if label.get_text().startswith("openguild"):
            label.set_fontweight("bold")
            label.set_color(OURS)
    axis.set_xlabel(f"{unit}\n◀ better")
    if axis.get_xscale() == "linear":
        axis.set_xlim(0, furthest * 1.15)
    else:
        axis.set_xlim(min(values.values()) / 2, furthest * 2.2)


def _cpu(results: Results) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4))
    titles = {"fanout": "one event at a time", "burst": "a burst as large as the ring"}
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        lines, floor = dict(results[key]), results[key]["floor"]["cpu_us"]
        if key == "fanout" and "whole" in results:
            whole = results["whole"]  # relative to the floor that was measured in turn with it
            own_floor = whole["cpu_us"] / results["whole_ratio"]
            lines["openguild, whole server"] = {
                "cpu_us": results["whole_ratio"] * floor, "spread": [edge / own_floor * floor for edge in whole["spread"]]
            }  # fmt: skip
        if key == "burst":
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        spreads = {name: [edge / floor for edge in line["spread"]] for name, line in lines.items() if "spread" in line}
        _bars(
            axis,
            {name: line["cpu_us"] / floor for name, line in lines.items()},
            spreads,
            f"multiples of a bare send(2) loop{' (logarithmic)' if key == 'burst' else ''}",
        )
        axis.axvline(1, color=FLOOR, linewidth=0.8, linestyle=":")
        axis.set_title(title, fontsize=10)
    figure.suptitle(
        f"CPU per delivery to {results['subscribers']:,} subscribers; lines: the lowest and the highest round",
        fontsize=10,
    )
    _save(figure, "cpu")


def _memory(results: Results) -> None:
    figure, axis = plt.subplots(figsize=(6, 2.6))
    shown = {name: line["bytes"] / 1024 for name, line in results["memory"].items() if line}
    shown["openguild"] = shown.pop("server")
    _bars(axis, shown, {}, "resident KiB per idle subscriber")
    axis.set_title("Memory of an idle subscriber")
    _save(figure, "memory")


def _latency(results: Results) -> None:
    """Draw the percentiles on a logarithmic axis of milliseconds, so that one long tail does not squeeze the others."""
    figure, axis = plt.subplots(figsize=(8, 4.4))
    lines = {**results["fanout"], "openguild, whole server": results["whole"]}
    ends = []
    for name, line in sorted(lines.items()):
        values = [line["percentiles_ms"][part] for part in SHOWN_PERCENTILES]
        ours = name.startswith("openguild")
        style = "--" if "whole" in name else "-"
        axis.plot(
            values,
            style,
            marker="o",
            markersize=3,
            color=colour(name),
            linewidth=2.2 if ours else 1.1,
            zorder=3 if ours else 2,
        )
        ends.append((values[-1], name, colour(name)))
    axis.set_yscale("log")
    axis.set_xticks(range(len(SHOWN_PERCENTILES)), [f"p{part}" for part in SHOWN_PERCENTILES])
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _label_ends(axis, len(SHOWN_PERCENTILES) - 1, ends)
    axis.set_ylabel("milliseconds (logarithmic)\n◀ better")
    axis.set_xlabel("percentile of deliveries")
    axis.grid(axis="y", which="both", linewidth=0.3)
    axis.set_title(f"Latency from post to socket, one event at a time to {results['subscribers']:,} subscribers")
    _save(figure, "latency")


def _label_ends(axis: Axes, last: float, ends: list[tuple[float, str, str]]) -> None:
    """Draw labels (value, name, colour) at the right ends of the lines, moved apart if they overlap, each with a thin line."""
    gap = axis.get_window_extent().height / 26
    ordered = sorted(ends)
    wanted = [float(axis.transData.transform((0, value))[1]) for value, *_ in ordered]
    begin, width = axis.get_xlim()[0], last - axis.get_xlim()[0]
    for (value, name, shade), at in zip(ordered, apart(wanted, gap), strict=True):
        y = axis.transData.inverted().transform((0, at))[1]
        axis.plot([last + 0.01 * width, last + 0.06 * width], [value, y], color=shade, linewidth=0.6)
        weight = "bold" if name.startswith("openguild") else "normal"
        axis.text(last + 0.07 * width, y, name, color=shade, va="center", fontsize=8, fontweight=weight)
    axis.set_xlim(begin, last + 0.4 * width)


def apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Return positions at least `gap` apart for ascending ones. Overlapping positions are spread around their mean."""
    groups: list[list[float]] = []
    for place in wanted:
        groups.append([place])
        while len(groups) > 1 and _top(groups[-2], gap) + gap > _bottom(groups[-1], gap):
            last = groups.pop()
            groups[-1] += last
    return [_bottom(group, gap) + gap * number for group in groups for number in range(len(group))]


def _bottom(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _top(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) + gap * (len(group) - 1) / 2


def _scaling(results: Results) -> None:
    figure, axis = plt.subplots(figsize=(6, 3.2))
    highest = {count: max(line[count] for line in results["scaling"].values()) for count in results["scaling"]["floor"]}
    for name, line in sorted(results["scaling"].items()):
        counts, costs = [int(count) for count in line], list(line.values())
        axis.plot(
            counts, costs, marker="o", label=name, color=colour(name), linewidth=2 if name == "openguild" else 1.2
        )
        for count, cost in zip(counts, costs, strict=True):
            above = 7 if cost == highest[str(count)] else -13
            place = {"xytext": (4 if above > 0 else 0, above), "textcoords": "offset points"}
            axis.annotate(
                f"{cost:.3g}", (count, cost), ha="center", fontsize=8, color=colour(name), **place,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
            )  # fmt: skip
    axis.set_xscale("log")
    axis.set_xlabel("subscribers (logarithmic)")
    axis.set_ylabel("microseconds\n◀ better")
    axis.set_ylim(bottom=0, top=axis.get_ylim()[1] * 1.15)
    axis.set_title("CPU per delivery, one event at a time")
    axis.legend(frameon=False)
    _save(figure, "scaling")


def _history() -> None:
    """Draw the ratios of each commit, oldest first, with the values of the newest."""
    lines = sorted(history(), key=lambda line: line["date"])
    commits = list(dict.fromkeys(line["commit"] for line in lines))
    figure, axis = plt.subplots(figsize=(8, 3.4))
    ends = []
    for measure, shade in zip(TRACKED, SHADES, strict=True):
        found = {line["commit"]: line for line in lines if line["measure"] == measure}
        if found:
            places = [commits.index(commit) for commit in found]
            ratios = [float(line["ratio"]) for line in found.values()]
            below = [ratio - float(line["low"]) for ratio, line in zip(ratios, found.values(), strict=True)]
            above = [float(line["high"]) - ratio for ratio, line in zip(ratios, found.values(), strict=True)]
            axis.errorbar(places, ratios, yerr=[below, above], marker="o", markersize=4, capsize=3, color=shade)
            ends.append((ratios[-1], f"{ratios[-1]:.2f}  {measure}", shade))
    axis.set_xticks(range(len(commits)), [short(commit) for commit in commits])
    axis.tick_params(axis="x", labelrotation=0 if len(commits) < 7 else 90)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "235" else "")
    axis.axhline(1, color=FLOOR, linewidth=0.8, linestyle=":")
    _label_ends(axis, len(commits) - 1, ends)
    axis.set_ylabel("ours against theirs (logarithmic)\n◀ better")
    axis.set_xlabel("commit, + with changes; bars: 95% intervals, of the fan-out up to 07558fa the furthest ratios")
    axis.set_title("Ratios by commit")
    _save(figure, "history")


def short(commit: str) -> str:
    """Return seven digits of a commit, with a + if the work tree differed from it."""
    return commit[:7] + "+" * commit.endswith("+")


if __name__ == "__main__":
    draw(json.loads((RESULTS / "load.json").read_text()))

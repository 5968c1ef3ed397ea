"""docs/dashboard.svg: panels of the dashboard during an incident and after it, from a real Prometheus and two real servers.

`make dashboard-picture`, about two minutes. For readers without a Grafana at hand. The database is read-only for half a minute.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import anyio
import asyncpg
import matplotlib as mpl
from matplotlib.axes import Axes

mpl.use("svg")
import matplotlib.pyplot as plt

from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from tests.support.prometheus import Prometheus
from tests.support.server import ServerProcess

HERE = Path(__file__).parent
TARGET = HERE.parents[2] / "docs/dashboard.svg"
BEFORE, DURING, AFTER = 25, 30, 45  # seconds
WINDOW_SECS = 10  # instead of the rules' minutes
ALERTS = "Firing alerts"
SHOWN = (
    ALERTS, "Ready", "p95 by route", "Server errors by instance", "Why the database refuses", "Requests by route",
    "Events by outcome", "Append latency", "Connections of the pool", "Login failures", "Streams open", "CPU",
)  # fmt: skip
LIMITS = {"SESSION__MAX_LOGINS_PER_ACCOUNT_PER_WINDOW": 100_000}
COLUMNS = 3
MAX_LINES = 7
COLOURS = {"page": "#c4162a", "warning": "#e0832a", "info": "#3274d9"}


def table() -> ModuleType:
    """dashboard.py, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("dashboard", HERE / "dashboard.py")
    if spec is None or spec.loader is None:
        raise ImportError("dashboard.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def servers(directory: Path) -> Iterator[tuple[list[ServerProcess], str]]:
    """Two replicas, and the URL of their database."""
    with ExitStack() as until:
        postgres, nats = EmbeddedPostgres(directory / "postgres", fsync=False), EmbeddedNats(directory / "nats")
        for private in (postgres, nats):
            private.start()
            until.callback(private.stop)
        found = [ServerProcess(directory, DATABASE_URL=postgres.url, NATS__URL=nats.url, **LIMITS) for _ in range(2)]
        found[0].run_command("migrate")
        for server in found:
            until.enter_context(server.start())
        yield found, postgres.url


def load(server: ServerProcess, ended: threading.Event) -> None:
    """Posts, pages, a reader, logins and some wrong passwords, until it ends; refusals are a part of it."""
    chat = server.chat()
    user = chat.user()
    channel = user.channel(user.guild())
    with user.stream(channel) as stream:
        reader = threading.Thread(target=lambda: sum(1 for _ in stream), daemon=True)
        reader.start()
        number = 0
        while not ended.wait(0.03):
            number += 1
            user.post(f"/channels/{channel}/messages", {"content": f"message {number}"})
            if number % 5 == 0:
                user.get(f"/channels/{channel}/events")
            if number % 20 == 0:
                login = {"identifier": user.name, "secret": "correct horse battery", "device": {"device_id": "picture"}}
                chat.http.post("/sessions/login", json=login | ({"secret": "wrong"} if number % 60 == 0 else {}))


async def read_only(url: str, on: bool) -> None:
    """As a failover does whose address did not follow."""
    connection = await asyncpg.connect(url, server_settings={"default_transaction_read_only": "off"})
    name = urlsplit(url).path[1:]
    how = "SET default_transaction_read_only = on" if on else "RESET default_transaction_read_only"
    await connection.execute(f"ALTER DATABASE {name} {how}")
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()


def asked(prometheus: Prometheus, query: str, start: float, end: float) -> list[dict[str, Any]]:
    """The series of a query of the dashboard."""
    filled = {
        "$__rate_interval": f"{WINDOW_SECS}s",
        "$environment": ".*",
        "$instance": ".*",
        "[5m]": f"[{WINDOW_SECS}s]",
    }
    for name, value in filled.items():
        query = query.replace(name, value)
    found = prometheus.get("/api/v1/query_range", query=query, start=str(start), end=str(end), step="1")
    return list(found["result"])


def draw_alerts(axis: Axes, series: list[dict[str, Any]], start: float) -> None:
    """A bar for each alert, while it fires."""
    times: dict[tuple[str, str], set[int]] = {}
    for line in series:
        key = line["metric"]["alertname"].removeprefix("OpenGuild"), line["metric"]["severity"]
        times.setdefault(key, set()).update(int(float(at) - start) for at, _ in line["values"])
    for place, ((name, severity), seconds) in enumerate(sorted(times.items(), key=lambda item: min(item[1]))):
        axis.broken_barh([(second, 1) for second in seconds], (place - 0.4, 0.8), color=COLOURS[severity], linewidth=0)
        axis.text(1, place, f"{name} ({severity})", va="center", fontsize=9)
    axis.set_ylim(max(len(times), 1) - 0.4, -0.6)
    axis.set_yticks([])


def draw_lines(axis: Axes, found: list[tuple[str, dict[str, Any]]], names: dict[str, str], start: float) -> None:
    """The largest series, each with its legend."""
    lines = []
    for legend, series in found:
        label = legend
        for name, value in series["metric"].items():
            label = label.replace("{{" + name + "}}", names.get(value, value))
        points = [(float(at) - start, float(value)) for at, value in series["values"] if value != "NaN"]
        if points:
            lines.append((max(value for _, value in points), label, points))
    for _, label, points in sorted(lines, key=lambda line: -line[0])[:MAX_LINES]:
        axis.plot(*zip(*points, strict=True), linewidth=1.6, label=label[:40])
    axis.set_ylim(bottom=0, top=axis.get_ylim()[1] * (1 + 0.09 * len(lines[:MAX_LINES])))  # room for the legend
    if lines:
        axis.legend(fontsize=8, loc="upper left", framealpha=0.7)


def draw(prometheus: Prometheus, module: ModuleType, names: dict[str, str], start: float, end: float) -> None:
    """Write the picture."""
    panels = {panel.title: panel for _, panel in module.panels()}
    rows = -(-len(SHOWN) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(17, 3.3 * rows), constrained_layout=True)
    figure.suptitle(
        f"OpenGuild Overview: the database is read-only from second {BEFORE} to {BEFORE + DURING} (grey). Two instances; "
        f"the rules' minutes are {WINDOW_SECS} s here.", fontsize=13,
    )  # fmt: skip
    for axis, title in zip(axes.flat, SHOWN, strict=True):
        panel = panels[title]
        axis.set_title(
            f"{title} ({panel.unit})" if panel.unit not in {"short", "bool"} else title, fontsize=11, loc="left"
        )
        axis.axvspan(BEFORE, BEFORE + DURING, color="#000000", alpha=0.08, linewidth=0)
        found = [(legend, series) for query, legend in panel.queries for series in asked(prometheus, query, start, end)]
        if title == ALERTS:
            draw_alerts(axis, [series for _, series in found], start)
        else:
            draw_lines(axis, found, names, start)
        if panel.limit is not None and axis.get_ylim()[1] > panel.limit / 2:
            axis.axhline(panel.limit, color="red", linewidth=1, linestyle="--")
        axis.set_xlim(0, end - start)
        axis.tick_params(labelsize=8)
    figure.savefig(TARGET, metadata={"Date": None})
    if len(sys.argv) > 1:  # also as pixels, to look at
        figure.savefig(sys.argv[1], dpi=70)


def main() -> None:
    """Cause the incident, and draw it."""
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    with tempfile.TemporaryDirectory() as name, servers(Path(name)) as (found, url):
        names = {f"127.0.0.1:{server.port}": f"server-{place}" for place, server in enumerate(found)}
        prometheus = Prometheus(Path(name), *names, window_secs=WINDOW_SECS)
        ended = threading.Event()
        work = [threading.Thread(target=load, args=(server, ended)) for server in found]
        try:
            prometheus.wait_scrapes()
            for thread in work:
                thread.start()
            time.sleep(2 * WINDOW_SECS)  # rates need their window
            start = time.time()
            time.sleep(BEFORE)
            anyio.run(read_only, url, True)
            time.sleep(DURING)
            anyio.run(read_only, url, False)
            time.sleep(AFTER)
            draw(prometheus, table(), names, start, time.time())
        finally:
            ended.set()
            for thread in work:
                thread.join()
            prometheus.stop()
    sys.stdout.write(f"wrote {TARGET}\n")


if __name__ == "__main__":
    main()

"""docs/dashboard.svg: the dashboard's panels drawn from what a real Prometheus has scraped from a real server under load.

`make dashboard-picture`, about a minute and a half. For readers without a Grafana at hand.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import matplotlib as mpl
import yaml
from websockets.exceptions import ConnectionClosed

mpl.use("svg")
import matplotlib.pyplot as plt

from benchmarks.load.actors import RealServer
from tests.support.waiting import free_port, wait_until

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SECS = 75
READERS = 40


def table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboard", HERE / "dashboard.py")
    if spec is None or spec.loader is None:
        raise ImportError("dashboard.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def prometheus(directory: Path, target: str) -> Iterator[str]:
    """Its address."""
    configuration = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "openguild-server", "static_configs": [{"targets": [target]}]}],
    }
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={directory}/prometheus.yaml", f"--storage.tsdb.path={directory}/data",
             f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def load(server: RealServer, ended: threading.Event) -> None:
    """Readers, posts of a varying rate, some mistakes, and one reader who stops reading."""
    user = server.user
    streams = [user.stream(server.channel) for _ in range(READERS)]
    threads = [threading.Thread(target=_read, args=(stream,)) for stream in streams[1:]]
    for thread in threads:
        thread.start()
    started = time.monotonic()
    number = 0
    while not ended.wait(0.01 if int(time.monotonic() - started) % 30 < 15 else 0.04):
        number += 1
        user.post(f"/channels/{server.channel}/messages", {"content": "y" * (4_000 if number % 3 else 10)})
        if number % 7 == 0:
            user.get("/guilds")
            user.get(f"/channels/{server.channel}/events")
        if number % 50 == 0:
            user.post(f"/channels/{server.channel}/messages", {"content": ""})
            user.chat.http.get("/users/me")
    for stream in streams:
        stream.close_socket()
    for thread in threads:
        thread.join()


def _read(stream: Any) -> None:
    with suppress(ConnectionClosed):  # cut at the end
        for _ in stream:
            continue


def draw(address: str, module: ModuleType, start: float, end: float) -> None:
    found = module.panels()
    columns = 3
    rows = -(-len(found) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(16, 2.7 * rows), constrained_layout=True)
    figure.suptitle("OpenGuild Overview: a server under load for 75 s, scraped by Prometheus", fontsize=13)
    for axis, (row, panel) in zip(axes.flat, found, strict=False):
        axis.set_title(f"{row}: {panel.title} ({panel.unit})", fontsize=8, loc="left")
        axis.tick_params(labelsize=6)
        for query, legend in panel.queries:
            expression = query.replace("$__rate_interval", "10s").replace("$namespace", ".*").replace("$job", ".*")
            asked = {"query": expression, "start": str(start), "end": str(end), "step": "1"}
            answer = httpx.get(f"{address}/api/v1/query_range", params=asked, trust_env=False).raise_for_status()
            for series in answer.json()["data"]["result"][:10]:
                label = legend
                for name, value in series["metric"].items():
                    label = label.replace("{{" + name + "}}", value)
                points = [(float(at) - start, float(value)) for at, value in series["values"] if value != "NaN"]
                axis.plot(*zip(*points, strict=True), linewidth=0.9, label=label[:44]) if points else None
        if panel.limit is not None and axis.get_ylim()[1] > panel.limit / 4:
            axis.axhline(panel.limit, color="red", linewidth=0.6, linestyle="--")
        axis.set_ylim(bottom=0)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=5, loc="upper left", framealpha=0.5)
    for axis in list(axes.flat)[len(found) :]:
        axis.remove()
    figure.savefig(ROOT / "docs/dashboard.svg", metadata={"Date": None})


def main() -> None:
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    with tempfile.TemporaryDirectory() as name:
        server = RealServer(Path(name))
        try:
            with prometheus(Path(name), f"127.0.0.1:{server.server.port}") as address:
                wait_until(lambda: _is_up(address), secs=30, what="Prometheus")
                ended = threading.Event()
                work = threading.Thread(target=load, args=(server, ended))
                start = time.time()
                work.start()
                time.sleep(SECS)
                end = time.time()
                draw(address, table(), start, end)
                ended.set()
                work.join()
        finally:
            server.close()
    sys.stdout.write("wrote docs/dashboard.svg\n")


def _is_up(address: str) -> bool:
    try:
        return httpx.get(f"{address}/-/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()

"""Several servers on one PostgreSQL and one NATS: latency between replicas, workers, storms, an outage of NATS."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.cluster.appends import posted_over_http
from benchmarks.load.actors import Crowd, RealServer, cpu_secs
from tests.support.chat import User
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

PAUSE_SECS = 3.5  # longer than the interval of tail checks
LIMITS = {f"WEBSOCKET__MAX_CONNECTIONS{end}": 1_000_000 for end in ("", "_PER_USER", "_PER_ADDRESS")}


def beside(server: RealServer, directory: Path, *flags: str, **settings: object) -> ServerProcess:
    """Return another server on the same database and NATS, not started."""
    return ServerProcess(
        directory, *flags, DATABASE_URL=server.postgres.url, NATS__URL=server.nats.url, **LIMITS, **settings
    )


@contextmanager
def two_workers(server: RealServer, directory: Path) -> Iterator[ServerProcess]:
    """Run a server with two worker processes, both of them serving."""
    with beside(server, directory, "--workers", "2").start() as pair:
        wait_until(
            lambda: pair.log_path.read_text().count('"message":"listening on') == 2, what="both workers' listeners"
        )
        yield pair


def between_replicas(server: RealServer, directory: Path, rate: float = 200, secs: float = 10) -> dict[str, Any]:
    """Measure the time from post to delivery, on the replica that stored the post and on another one."""
    count = int(rate * secs)
    with beside(server, directory).start() as other:
        here = Crowd(server.server.port, 20, server.target, server.user.token)
        there = Crowd(other.port, 20, server.target, server.user.token)
        for crowd in (here, there):
            crowd.begin_reading(1.0)
        server.post_at(rate, count)
        heard = {"same": here.result(), "other": there.result()}
        here.close()
        there.close()
    return {
        name: {"p50_ms": line["p50"] * 1e3, "p99_ms": line["p99"] * 1e3, "frames": line["frames"]}
        for name, line in heard.items()
    } | {"count": count}


def workers(server: RealServer, directory: Path, subscribers: int = 1_000) -> dict[str, Any]:
    """Measure the deliveries per second, with one worker and with two, when 32 connections post as fast as they can."""
    found: dict[str, Any] = {}
    for count, made in ((1, beside(server, directory).start), (2, lambda: two_workers(server, directory))):
        with made() as other:
            channel = server.user.channel(server.user.guild())
            crowd = Crowd(other.port, subscribers, f"/channels/{channel}/ws?since=0", server.user.token)
            crowd.begin_reading(2.0)
            own = cpu_secs(crowd.process.pid)
            started = time.monotonic()
            posted = posted_over_http(other.port, 32, 5.0, server.user.token, [channel])
            heard = crowd.result()
            wall = time.monotonic() - started - 2.0
            found[str(count)] = {
                "deliveries_per_sec": posted["posts"] * subscribers / wall, "posts_per_sec": posted["per_sec"],
                "generator_cpu_share": (cpu_secs(crowd.process.pid) - own) / wall, "frames": heard["frames"],
            }  # fmt: skip
            crowd.close()
    found["ratio"] = found["2"]["deliveries_per_sec"] / found["1"]["deliveries_per_sec"]
    return found


def text(server: ServerProcess) -> str:
    return httpx.get(server.base_url + "/metrics", trust_env=False).text


class Health:
    """Requests `/health` every 5 ms; `p99` of the answers."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.times: list[float] = []

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=30) as client:
            while not self._stop.wait(0.005):
                started = time.monotonic()
                client.get("/health").raise_for_status()
                self.times.append(time.monotonic() - started)

    @property
    def p99(self) -> float:
        return sorted(self.times)[int(len(self.times) * 0.99)]

    def __enter__(self) -> Health:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def storm(server: RealServer, directory: Path, clients: int = 5_000, window_secs: float = 5.0) -> dict[str, Any]:
    """Drain a replica with 5,000 streams; all return to another one within the jitter window, each with a replay."""
    for number in range(50):
        server.user.say(server.channel, f"m{number}")
    with ExitStack() as stack:
        old = stack.enter_context(beside(server, directory).start())
        new = stack.enter_context(beside(server, directory).start())
        crowd = Crowd(old.port, clients, f"{server.target}?since=0", server.user.token)
        stopped = threading.Thread(target=old.stop)
        stopped.start()
        stopped.join()
        crowd.close()
        with Health(new.base_url) as health:
            back = Crowd(new.port, clients, f"{server.target}?since=0", server.user.token, over_secs=window_secs)
            secs = back.secs
        back.close()
    return {"clients": clients, "window_secs": window_secs, "secs": secs, "health_p99_ms": health.p99 * 1e3}


def nats_away(
    server: RealServer, directory: Path, secs: float = 60.0, rate: float = 20.0, pairs: int = 10
) -> dict[str, Any]:
    """Measure how late the other replica's subscribers get this one's posts while NATS is dead.

    First posts are made only here; then `pairs` of a post there and one here, with a pause after each. No later event shows the
    gap, and the other replica's own post must not make it believe that it is up to date.
    """
    with beside(server, directory).start() as other:
        since = server.user.history(server.channel, before=1 << 53, limit=1)[-1]["sequence"]
        server.nats.kill()
        try:
            there = Crowd(other.port, 20, f"{server.target}?since={since}", server.user.token)
            there.begin_reading(5.0)
            server.post_at(rate, int(rate * secs))
            heard = there.result()
            there.close()
            beyond = since + int(rate * secs)
            there = Crowd(other.port, 20, f"{server.target}?since={beyond}", server.user.token)
            there.begin_reading(5.0)
            user = User(other.chat(), server.user.name, server.user.token, "", "")
            for _ in range(pairs):
                user.say(server.channel, f'"t":{time.monotonic_ns():020d}')
                server.post_at(1 / PAUSE_SECS, 1)
            both = there.result()
            there.close()
        finally:
            server.nats.restart()
    return {
        "secs": secs,
        "p50_secs": heard["p50"],
        "longest_secs": heard["max"],
        "frames": heard["frames"],
        "posts": int(rate * secs),
        "both": {"longest_secs": both["max"], "frames": both["frames"], "posts": 2 * pairs},
    }

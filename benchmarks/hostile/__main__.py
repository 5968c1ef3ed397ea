"""Slow, hostile and guessing peers: takes about two minutes. Results: benchmarks/results/hostile.md."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from benchmarks.lab.program import program
from benchmarks.lab.results import RESULTS, require_writable, stamped, write
from benchmarks.lab.stamp import told
from benchmarks.load.actors import RealServer, resident_bytes
from tests.support.chat import PASSWORD
from tests.support.waiting import wait_until

CROWD = 500
LIMIT_SECS = 45.0
OTHERS = ("slow body", "silent", "ping flood", "fragments", "huge frame")
GUESSES = 200


class Bystander:
    """Another client, which posts and reads at a steady rate and measures its latencies."""

    def __init__(self, server: RealServer) -> None:
        user = server.user
        self._client = httpx.Client(base_url=server.server.base_url, headers=user.auth, trust_env=False, timeout=30)
        self._path = f"/channels/{user.channel(user.guild('bystander'), 'quiet')}/messages"

    def watch(self, secs: float) -> list[float]:
        """Return the latencies of 50 posts per second."""
        latencies = []
        due = started = time.monotonic()
        while (now := time.monotonic()) < started + secs:
            self._client.post(self._path, json={"content": "x"}).raise_for_status()
            latencies.append(time.monotonic() - now)
            due += 0.02
            time.sleep(max(0.0, due - time.monotonic()))
        return latencies


def p99(latencies: list[float]) -> float:
    return statistics.quantiles(latencies, n=100)[98]


@contextlib.contextmanager
def attack(server: RealServer, kind: str, count: int, secs: float = LIMIT_SECS) -> Iterator[subprocess.Popen[str]]:
    script = Path(__file__).with_name("attackers.py")
    arguments = [str(server.server.port), server.user.token, server.channel, kind, str(count), str(secs)]
    with subprocess.Popen([sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def outcome(process: subprocess.Popen[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(process.communicate(timeout=LIMIT_SECS * 2)[0])
    return found


def crowd(server: RealServer) -> dict[str, Any]:
    """Measure a bystander in the readers' channel, before and during 500 slow request heads and 500 slow readers."""
    bystander = Bystander(server)
    ended = threading.Event()
    peak = 0

    def chatter() -> None:
        nonlocal peak
        while not ended.wait(0.1):
            server.user.say(server.channel, "y" * 3_500)
            peak = max(peak, resident_bytes(server.pid))

    talking = threading.Thread(target=chatter, daemon=True)
    talking.start()
    idle = p99(bystander.watch(10.0))
    readers_here = server.crowd(CROWD, since=0)
    with contextlib.closing(readers_here):
        readers_here.begin_reading(3.0)
        well = p99(bystander.watch(10.0))
    wait_until(lambda: server.server.metric("openguild_websocket_connections") == 0, secs=20)
    before, peak = resident_bytes(server.pid), 0
    started = time.monotonic()
    with attack(server, "slow header", CROWD) as heads, attack(server, "slow reader", CROWD):
        arriving = bystander.watch(2.0)
        during = bystander.watch(18.0)
        while (
            left := int(server.server.metric("openguild_websocket_connections"))
        ) and time.monotonic() < started + LIMIT_SECS:
            time.sleep(0.1)
        last_secs = time.monotonic() - started
        found = outcome(heads)
    readers = {"kind": "slow reader", "count": CROWD, "closed": CROWD - left, "last_secs": last_secs}
    ended.set()
    talking.join()
    return {
        "idle_p99_ms": idle * 1e3, "p99_ms": p99(during) * 1e3, "p99_ratio": p99(during) / idle,
        "well_p99_ms": well * 1e3, "well_p99_ratio": p99(during) / well,
        "arriving_p99_ms": p99(arriving) * 1e3, "whole_p99_ratio": p99(arriving + during) / idle, "attacks": [found, readers],
        "growth_mib": (peak - before) / 2**20, "left_mib": (resident_bytes(server.pid) - before) / 2**20,
    }  # fmt: skip


def alone(server: RealServer, kind: str) -> dict[str, Any]:
    before = resident_bytes(server.pid)
    with attack(server, kind, 20) as attacker:
        found = outcome(attacker)
    return found | {"growth_mib": (resident_bytes(server.pid) - before) / 2**20}


def rank_test(left: list[float], right: list[float]) -> float:
    """Return the p-value of a two-sided Mann-Whitney test, by normal approximation."""
    ordered = sorted([(value, 0) for value in left] + [(value, 1) for value in right])
    rank_sum = sum(place for place, (_, group) in enumerate(ordered, start=1) if group == 0)
    mean = len(left) * (len(ordered) + 1) / 2
    deviation = math.sqrt(len(left) * len(right) * (len(ordered) + 1) / 12)
    return math.erfc(abs(rank_sum - mean) / deviation / math.sqrt(2))


def login_times(server: RealServer) -> dict[str, Any]:
    """Measure wrong passwords of known names and of unknown names, in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    known = [server.server.chat().user().name for _ in range(20)]
    with httpx.Client(base_url=server.server.base_url, trust_env=False, timeout=30) as client:
        for number in range(2 * GUESSES + 20):
            unknown = number % 2
            name = f"nobody-{number % 40}-{'x' * 12}" if unknown else known[number // 2 % len(known)]
            body = {"identifier": name, "secret": PASSWORD + "?", "device": {"device_id": "x"}}
            started = time.perf_counter()
            answer = client.post("/sessions/login", json=body)
            elapsed = time.perf_counter() - started
            if answer.status_code != 401:
                raise RuntimeError(answer.text)
            if number >= 20:  # after a warm-up
                times[unknown].append(elapsed)
    medians = [statistics.median(values) for values in times]
    return {"guesses": GUESSES, "median_ratio": medians[1] / medians[0], "p_value": rank_test(*times)}


def run() -> dict[str, Any]:
    results = stamped({})
    with tempfile.TemporaryDirectory() as name:
        server = RealServer(Path(name), SESSION__MAX_LOGINS_PER_ACCOUNT_PER_WINDOW=100_000)
        try:
            return results | {
                "login": login_times(server),
                "others": [alone(server, kind) for kind in OTHERS],
                "crowd": crowd(server),
            }
        finally:
            server.close()


def rows(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    found, login = results["crowd"], results["login"]
    lines = [
        (
            "other clients' p99 while 500 slow heads and 500 slow readers are there, against idle",
            f"{found['p99_ratio']:.2f}",
            "<= 1.5",
        ),
        ("the same against 500 readers who read", f"{found['well_p99_ratio']:.2f}", "reported"),
        (
            "the first, with the two seconds in which the thousand connect",
            f"{found['whole_p99_ratio']:.2f}",
            "reported",
        ),
        ("memory they take at most, MiB", f"{found['growth_mib']:.1f}", "reported"),
    ]
    for attack_found in (*found["attacks"], *results["others"]):
        last = attack_found["last_secs"]
        when = f"closed, the last after {last:.1f} s" if last is not None else "closed"
        growth = f", {attack_found['growth_mib']:+.1f} MiB" if "growth_mib" in attack_found else ""
        lines.append(
            (
                f"{attack_found['count']} × {attack_found['kind']}",
                f"{attack_found['closed']} {when}{growth}",
                "all closed",
            )
        )
    lines += [
        ("login, unknown name against wrong password: median", f"{login['median_ratio']:.3f}", "1"),
        ("the same: p of Mann-Whitney, 200 of each", f"{login['p_value']:.2f}", "> 0.05"),
    ]
    return lines


def markdown(results: dict[str, Any]) -> str:
    lines = [
        "| measure | value | asked for |",
        "| --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in rows(results)),
    ]
    return "\n".join([*lines, "", told(results["stamp"])]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__)
    parser.add_argument("--save", action="store_true", help="keep the results in hostile.json and hostile.md")
    given = parser.parse_args()
    if given.save:
        require_writable()
    results = run()
    sys.stdout.write(markdown(results))
    if given.save:
        write("hostile", results)
        (RESULTS / "hostile.md").write_text(markdown(results))
    return 0


if __name__ == "__main__":
    program(main)

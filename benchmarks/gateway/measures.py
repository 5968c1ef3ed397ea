"""What is measured of gateway sockets: memory of a subscription, CPU of a delivery, a reader that stops."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gateway.driver import End, Gateway, log_name
from openguild_proto.gateway.encoding import Encoding

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def apart(measure: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Measure in a process of its own, so that no memory of another measure is reused."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def memory(sockets: int, each: int, logs: int) -> dict[str, float]:
    """Bytes per subscription beyond the socket and beyond the log, and bytes of a socket and of a log."""
    gateway = Gateway()
    names = [log_name(number) for number in range(logs)]
    start = resident()
    ends = [End(gateway, paired=False) for _ in range(sockets)]
    with_sockets = resident()
    for name in names:
        gateway.feeds.open(name, 1, 0, Encoding.JSON)
    with_logs = resident()
    chance = random.Random(1)
    for number, end in enumerate(ends):
        mine = chance.sample(names, each) if logs < sockets * each else names[number * each : (number + 1) * each]
        gateway.follow(end, mine)
    return {
        "socket": (with_sockets - start) / sockets,
        "log": (with_logs - with_sockets) / logs,
        "subscription": (resident() - with_logs) / sockets / each,
    }


def delivery(sockets: int, rounds: int, events: int) -> dict[str, float]:
    """Microseconds of CPU per delivery, and ratios: the same sockets follow one log, or a hundred."""
    names = [log_name(number) for number in range(100)]
    alone, among, spread = Gateway(), Gateway(), Gateway()
    ends: dict[Gateway, list[End]] = {}
    for gateway, followed in ((alone, names[:1]), (among, names), (spread, names)):
        ends[gateway] = [End(gateway) for _ in range(sockets)]
        for end in ends[gateway]:
            gateway.follow(end, followed)
            end.read()
    chance = random.Random(1)
    times: dict[str, list[float]] = {"alone": [], "among 100": [], "spread over 100": []}
    for _ in range(rounds):
        for name, gateway in zip(times, (alone, among, spread), strict=True):
            used = 0.0
            for _ in range(events):
                log = chance.choice(names) if gateway is spread else names[0]
                begin = time.process_time()
                gateway.publish(log)
                used += time.process_time() - begin
                for end in ends[gateway]:
                    end.read()
            times[name].append(used / events / sockets * 1e6)
    found = {name: statistics.median(values) for name, values in times.items()}
    for name in list(times)[1:]:
        ratios = [other / one for one, other in zip(times["alone"], times[name], strict=True)]
        found[f"{name}, ratio"] = statistics.median(ratios)
    return found


def stopped_reader(sockets: int, events: int) -> dict[str, float]:
    """A reader that takes nothing while events pass, then everything; and what the others notice of it."""
    late: dict[str, list[float]] = {"without": [], "with": []}
    found: dict[str, float] = {}
    for name, slow in (("without", False), ("with", True)) * 2:
        gateway = Gateway()
        ends = [End(gateway) for _ in range(sockets)]
        log = log_name(0)
        stopped = End(gateway) if slow else None
        for end in [*ends, *([stopped] if stopped else [])]:
            gateway.follow(end, [log])
            end.read()
        before = resident()
        for _ in range(events):
            begin = time.process_time()
            gateway.publish(log)
            late[name].append(time.process_time() - begin)
            for end in ends:
                end.read()
        if stopped is not None:
            found["memory for it, MiB"] = (resident() - before) / (1 << 20)
            begin, total = time.process_time(), 0
            feed = gateway.feeds.open(log, 1, 0, Encoding.JSON)
            while True:
                got = stopped.read()
                total += got
                stopped.pump()
                if not got and not stopped.outbox and not gateway.feeds.gates[stopped.sock.fileno()]:
                    break
            found["catching up, us of CPU per event"] = (time.process_time() - begin) / events * 1e6
            assert stopped.server.subscriptions.position(feed) == events
            assert total > events * 300
        for end in list(gateway.ends.values()):
            end.close()
    for name, values in late.items():
        found[f"p99 of a flush {name}, us"] = statistics.quantiles(values, n=100)[98] * 1e6
    found["p99, ratio"] = found["p99 of a flush with, us"] / found["p99 of a flush without, us"]
    return found

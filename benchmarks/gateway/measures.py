"""The measurements of gateway sockets: memory of a subscription, CPU of a delivery, a stopped reader."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
import statistics
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gateway.driver import End, Gateway, log_name
from openguild_proto.gateway.encoding import Encoding

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Return the resident memory of this process, in bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def apart(measure: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Run a measurement in a separate process, so that it does not reuse memory of another one."""
    with multiprocessing.get_context("spawn").Pool(1, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        return pool.apply(measure, arguments)


def memory(sockets: int, each: int, logs: int) -> dict[str, float]:
    """Return the bytes per subscription without the socket and the log, and those of a socket and of a log."""
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
    """Return the microseconds of CPU per delivery, and ratios: the same sockets follow one log, or a hundred."""
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
    """Measure a reader that reads nothing while events pass, then everything; and the effect on the other readers.

    Two gateways take turns, event by event: one with that reader, one without.
    """
    log = log_name(0)
    without, beside = Gateway(), Gateway()
    for gateway in (without, beside):
        for _ in range(sockets):
            gateway.follow(End(gateway), [log])
    stopped = End(beside)
    beside.follow(stopped, [log])
    stopped.read()
    late = {without: array("d"), beside: array("d")}
    others = [end for gateway in late for end in gateway.ends.values() if end is not stopped]
    before = resident()
    for number in range(events):
        for gateway in (without, beside) if number % 2 else (beside, without):
            begin = time.perf_counter()
            gateway.publish(log)
            late[gateway].append(time.perf_counter() - begin)
        for end in others:
            end.read()
    memory_for_it = resident() - before
    begin, total = time.process_time(), 0
    feed = beside.feeds.open(log, 1, 0, Encoding.JSON)
    while True:
        got = stopped.read()
        total += got
        stopped.pump()
        if not got and not stopped.outbox and not beside.feeds.gates[stopped.sock.fileno()]:
            break
    catching_up = time.process_time() - begin
    assert stopped.server.subscriptions.position(feed) == events
    assert total > events * 300
    found = {
        "memory for it, both rings and the measure, MiB": memory_for_it / (1 << 20),
        "catching up, us of CPU per event": catching_up / events * 1e6,
    }
    for name, percentile in (("p50", 49), ("p99", 98)):
        values = [statistics.quantiles(late[gateway], n=100)[percentile] * 1e6 for gateway in (without, beside)]
        found |= {
            f"{name} of a flush without, us": values[0],
            f"{name} with, us": values[1],
            f"{name}, ratio": values[1] / values[0],
        }
    return found

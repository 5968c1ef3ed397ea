"""Metrics of the process under the standard names of Prometheus clients. They need /proc.

Replaces the library's collector, which lists all descriptors to count them, and takes 30 ms with 15,000 open.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SELF = Path("/proc/self")


class ProcessCollector(Collector):
    """Collects memory, CPU time, descriptors and the start time."""

    def __init__(self) -> None:
        self._started = _boot_secs()

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics, or none without /proc."""
        try:
            fields = (SELF / "stat").read_bytes().rpartition(b")")[2].split()
            descriptors = open_descriptors()
        except OSError:
            return
        tick = os.sysconf("SC_CLK_TCK")
        pages = int(fields[21])
        yield _gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", int(fields[20]))
        yield _gauge("process_resident_memory_bytes", "Resident memory size in bytes.", pages * resource.getpagesize())
        started = self._started + int(fields[19]) / tick
        yield _gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", started)
        spent = (int(fields[11]) + int(fields[12])) / tick
        yield CounterMetricFamily("process_cpu_seconds", "Total user and system CPU time spent in seconds.", spent)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield _gauge("process_open_fds", "Number of open file descriptors.", descriptors)
        yield _gauge("process_max_fds", "Maximum number of open file descriptors.", limit)


def open_descriptors() -> int:
    """Return the number of open descriptors, from Linux 6.2 on the size of fd/. Raises OSError without /proc."""
    listed = SELF / "fd"
    return listed.stat().st_size or len(os.listdir(listed))


def _boot_secs() -> float:
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) for line in lines if line.startswith("btime ")), 0.0)


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)

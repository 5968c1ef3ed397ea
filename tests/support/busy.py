"""Measures the load by other processes, for tests that limit how long something may take; from the Linux kernel's counters."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path


def fair_secs() -> float:
    """Return monotonic seconds, less those in which any task of this machine was runnable and no processor was free."""
    with suppress(OSError):  # the kernel has no pressure counters
        some, _, _ = Path("/proc/pressure/cpu").read_text().partition("\n")
        return time.monotonic() - int(some.rpartition("=")[2]) / 1_000_000
    return time.monotonic()


def starved_secs(process: int | str) -> float:
    """Return how long a process's main thread has been runnable without a processor; `thread-self` is the caller's thread."""
    with suppress(OSError):
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1_000_000_000
    return 0.0

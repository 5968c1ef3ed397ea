"""What other work on this machine costs, for tests that say how long something may take: as the Linux kernel counts it."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path


def fair_secs() -> float:
    """Monotonic seconds, less those in which anything here was ready to run and no processor was free."""
    with suppress(OSError):  # a kernel without it
        some, _, _ = Path("/proc/pressure/cpu").read_text().partition("\n")
        return time.monotonic() - int(some.rpartition("=")[2]) / 1_000_000
    return time.monotonic()


def starved_secs(process: int | str) -> float:
    """How long the first thread of a process has been ready to run and had no processor, so far; `thread-self`: our thread."""
    with suppress(OSError):
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1_000_000_000
    return 0.0

"""Measures how late the loop wakes a timer, which shows anything that blocks the loop."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
import structlog

from openguild_runtime.observability.metrics import Metrics

PROBE_SECS = 0.05
LONG_STALL_SECS = 1.0  # from here on, a stall is logged

log = structlog.get_logger("openguild.server")


async def measure_stalls(metrics: Metrics, clock: Callable[[], float]) -> None:
    """Measure stalls until cancelled. `clock` returns monotonic seconds."""
    while True:
        due, used = clock() + PROBE_SECS, time.thread_time()
        await anyio.sleep(PROBE_SECS)
        late = max(0.0, clock() - due)
        metrics.loop_stall(late)
        if late > LONG_STALL_SECS:
            log.warning(stall_text(late, time.thread_time() - used))


def stall_text(secs: float, cpu_secs: float) -> str:
    """Explain a stall of the loop by the CPU time that its thread used meanwhile."""
    text = f"the event loop was blocked for {secs:.1f} s, with {cpu_secs:.1f} s of CPU: "
    if cpu_secs > secs / 2:
        return text + "this process was too busy; see the runbook of loop stalls"
    return (
        text
        + "the process was stopped, or the machine had no CPU or memory for it; faults of NATS may follow from that"
    )

"""How late the loop wakes a timer: whatever holds the loop shows here."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from openguild_runtime.observability.metrics import Metrics

PROBE_SECS = 0.05


async def measure_stalls(metrics: Metrics, clock: Callable[[], float]) -> None:
    """Until cancelled. `clock`: monotonic seconds."""
    while True:
        due = clock() + PROBE_SECS
        await anyio.sleep(PROBE_SECS)
        metrics.loop_stall(max(0.0, clock() - due))

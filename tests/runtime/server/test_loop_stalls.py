"""A long stall of the loop is a line that says what held it."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest
from structlog.testing import capture_logs

from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.server.loop_stalls import PROBE_SECS, measure_stalls, stall_text

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("late", "lines"), [(0.9, 0), (3.0, 1)])
async def test_a_long_stall_is_a_line(late: float, lines: int) -> None:
    metrics = Metrics("0", native_ring=False)
    times: Iterator[float] = iter([0.0, PROBE_SECS + late])
    seen = anyio.Event()

    def clock() -> float:
        time = next(times, None)
        if time is None:  # the first stall was counted
            seen.set()
            return 0.0
        return time

    with capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(measure_stalls, metrics, clock)
            await seen.wait()
            tasks.cancel_scope.cancel()
    assert metrics.longest_stall_secs() == pytest.approx(late)
    assert [(line["log_level"], line["event"][:44]) for line in logs] == [
        ("warning", "the event loop was blocked for 3.0 s, with 0")
    ] * lines


def test_the_line_tells_work_from_a_stop() -> None:
    assert "too busy" in stall_text(2.0, 1.5)
    assert "was stopped" in stall_text(2.0, 0.5)

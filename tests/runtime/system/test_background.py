"""Exceptions of background tasks are logged; cancellation passes through."""

from __future__ import annotations

import anyio
import pytest
from structlog.testing import capture_logs

from openguild_runtime.system.background import ThrottledTask, log_exceptions
from tests.support.waiting import eventually


def test_outages_are_debug_and_bugs_have_a_traceback() -> None:
    with capture_logs() as records:
        with log_exceptions("reading", LookupError):
            raise KeyError("away")
        with log_exceptions("reading", LookupError):
            raise ValueError("a defect")
    assert [(line["event"], line["log_level"], "exc_info" in line) for line in records] == [
        ("reading: put off", "debug", False),
        ("reading: failed", "error", True),
    ]


@pytest.mark.anyio
async def test_cancellation_passes_through() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        with log_exceptions("waiting"):
            await anyio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_requests_during_a_run_lead_to_one_more() -> None:
    """Many reconnects do not cause many database queries."""
    begun: list[float] = []
    going = anyio.Event()

    async def check() -> None:
        begun.append(anyio.current_time())
        await going.wait()
        if len(begun) == 2:
            raise KeyError("a defect ends nothing")

    async with anyio.create_task_group() as tasks:
        coalesced = ThrottledTask(tasks, check, 0.2)
        coalesced.request()
        await eventually(lambda: len(begun) == 1)
        for _ in range(500):
            coalesced.request()
        going.set()
        await eventually(lambda: len(begun) == 2)
        assert begun[1] - begun[0] >= 0.2
    assert len(begun) == 2
    async with anyio.create_task_group() as tasks:
        ThrottledTask(tasks, check, 0.0).request()
    assert len(begun) == 3, "at once"

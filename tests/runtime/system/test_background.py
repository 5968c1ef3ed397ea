"""What is contained ends in the log, and what must pass does."""

from __future__ import annotations

import anyio
import pytest
from structlog.testing import capture_logs

from openguild_runtime.system.background import ThrottledTask, log_exceptions
from tests.support.waiting import eventually


def test_an_outage_is_a_detail_and_a_defect_has_its_traceback() -> None:
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
async def test_cancellation_passes() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        with log_exceptions("waiting"):
            await anyio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_what_is_asked_for_while_it_runs_is_one_more_run() -> None:
    """A storm of reconnects is no storm of questions to the database."""
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

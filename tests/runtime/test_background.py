"""What is contained ends in the log, and what must pass does."""

from __future__ import annotations

import anyio
import pytest
from structlog.testing import capture_logs

from openguild_runtime.background import contained


def test_an_outage_is_a_detail_and_a_defect_has_its_traceback() -> None:
    with capture_logs() as records:
        with contained("reading", LookupError):
            raise KeyError("away")
        with contained("reading", LookupError):
            raise ValueError("a defect")
    assert [(line["event"], line["log_level"], "exc_info" in line) for line in records] == [
        ("reading: put off", "debug", False),
        ("reading: failed", "error", True),
    ]


@pytest.mark.anyio
async def test_cancellation_passes() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        with contained("waiting"):
            await anyio.sleep_forever()
    assert scope.cancelled_caught

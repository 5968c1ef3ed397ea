"""What a probe of the store tells the log and the metrics."""

from __future__ import annotations

import time

import anyio
import pytest
from structlog.testing import capture_logs

from openguild_proto.effects.process import StorageHealth
from openguild_proto.policy.descriptors import DescriptorBudget
from openguild_proto.policy.lifecycle import Lifecycle
from openguild_runtime.bus.local import LocalBus
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.server.readiness import ReadinessProbe
from openguild_runtime.storage.memory import MemoryStorage

pytestmark = pytest.mark.anyio


class Slow(MemoryStorage):
    """It answers once."""

    asked = 0

    async def check(self) -> StorageHealth:
        self.asked += 1
        if self.asked > 1:
            await anyio.sleep_forever()
        return await super().check()


async def test_a_probe_that_the_end_interrupts_says_nothing_of_the_database() -> None:
    storage, metrics = Slow(), Metrics("0", native_ring=False)
    budget = DescriptorBudget(1_000, 0, 100)
    probe = ReadinessProbe(storage, LocalBus(), metrics, budget, Lifecycle(), time.monotonic, is_memory=False)
    with capture_logs() as records:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(probe.watch)
            while storage.asked < 2:
                probe.doubt()
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
    assert [record["event"] for record in records] == ["database reachable"]
    assert b"openguild_db_ready 1.0" in metrics.render()

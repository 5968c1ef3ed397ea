"""Drives `LimitSharing`: its clock, and the bus."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from openguild_proto.policy.sharing import PUBLISH_SECS, LimitSharing
from openguild_runtime.bus.base import Bus
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.system.background import contained


async def share_limits(sharing: LimitSharing, bus: Bus, metrics: Metrics, clock: Callable[[], float]) -> None:
    """Until cancelled."""
    bus.on_answer = lambda: sharing.answered(clock())
    bus.on_limits = lambda payload: sharing.received(payload, clock())
    bus.limits_probe = sharing.probe()
    while True:
        with contained("sharing limits"):
            payload = sharing.tick(clock(), connected=bus.connected, heard=bus.limits_travel)
            metrics.limit_divisor(sharing.divisor)
            if payload is not None:
                bus.publish_limits(payload)
        await anyio.sleep(PUBLISH_SECS)

"""Shares the counts of rate limits between replicas: drives the core's `LimitSharing` by a clock and the bus."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from openguild_proto.policy.limit_sharing import PUBLISH_SECS, LimitSharing
from openguild_runtime.bus.base import Bus
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.system.background import log_exceptions


class LimitSharer:
    """One per replica. `clock`: monotonic seconds."""

    def __init__(self, sharing: LimitSharing, bus: Bus, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.probe = sharing.probe()
        self._sharing = sharing
        self._bus = bus
        self._metrics = metrics
        self._clock = clock

    def heard(self, payload: bytes) -> None:
        """What another replica has admitted."""
        self._sharing.received(payload, self._clock())

    def answered(self) -> None:
        """The server of the wire has taken what was published before."""
        self._sharing.answered(self._clock())

    async def run(self) -> None:
        """Publish what this replica admits, until cancelled."""
        while True:
            with log_exceptions("sharing limits"):
                payload = self._sharing.tick(
                    self._clock(), connected=self._bus.connected, heard=self._bus.limits_delivered
                )
                self._metrics.limit_divisor(self._sharing.divisor)
                if payload is not None:
                    self._bus.publish_limits(payload)
            await anyio.sleep(PUBLISH_SECS)

"""`/ready` (PROTOCOL 11.1): probes the store, with a cache and a time limit.

One task probes the database every second, and sooner after a failure. `/ready` reports the latest result, or after
half a second that the database did not respond.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import structlog

from openguild_proto.effects.process import Readiness, StorageHealth
from openguild_proto.operations.readiness import NO_RESPONSE, NOTHING_KNOWN, describe_change, describe_readiness
from openguild_proto.policy.descriptors import DescriptorBudget
from openguild_proto.policy.lifecycle import Lifecycle
from openguild_runtime.bus.base import Bus
from openguild_runtime.observability.database_causes import explain
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.background import log_exceptions

CACHE_SECS = 1.0
PROBE_LIMIT_SECS = 0.5  # how long `/ready` waits for a probe; the probe itself goes on
WATCH_SECS = 1.0
REST_SECS = 0.2  # at least, between two probes

log = structlog.get_logger("openguild.readiness")


class ReadinessProbe:
    """Probes the store about once a second and reports the state of the replica."""

    def __init__(
        self,
        storage: Storage,
        bus: Bus,
        metrics: Metrics,
        budget: DescriptorBudget,
        lifecycle: Lifecycle,
        clock: Callable[[], float],
        *,
        is_memory: bool,
    ) -> None:
        self._storage = storage
        self._bus = bus
        self._metrics = metrics
        self._budget = budget
        self._clock = clock
        self._started = clock()
        self._lifecycle = lifecycle
        self._is_memory = is_memory
        self._health = NOTHING_KNOWN
        self._checked_at = float("-inf")
        self._began: float | None = None  # when the probe that is running began
        self._ended = anyio.Event()
        self._wanted = anyio.Event()

    async def __call__(self) -> Readiness:
        """Return the current state of the replica."""
        health = await self._storage_health()
        now = self._clock()
        return describe_readiness(
            health,
            self._bus.component,
            self._lifecycle,
            is_memory=self._is_memory,
            standbys=[standby.state for standby in self._storage.stats().standbys],
            descriptors_short=self._budget.is_short(now),
            uptime_seconds=int(now - self._started),
        )

    def doubt(self) -> None:
        """Request a probe now, because a query has failed."""
        self._wanted.set()

    async def _storage_health(self) -> StorageHealth:
        """Return the last probe's result if it is recent, else that of a new probe, or NO_RESPONSE if it takes too long."""
        now = self._clock()
        if now - self._checked_at < CACHE_SECS:
            return self._health
        self._wanted.set()
        ended = self._ended
        with anyio.move_on_after(PROBE_LIMIT_SECS - (now - self._began if self._began is not None else 0.0)):
            await ended.wait()
        if not ended.is_set():
            self._metrics.db_ready(False)
            return NO_RESPONSE
        return self._health

    async def _probe(self) -> None:
        self._began = self._clock()
        try:
            health = await self._storage.check()
        except Exception:
            self._found(NOTHING_KNOWN)
            raise
        self._found(health)  # not reached by a probe that is cancelled at shutdown

    def _found(self, health: StorageHealth) -> None:
        self._learn(health)
        self._checked_at, self._began = self._clock(), None
        ended, self._ended = self._ended, anyio.Event()
        ended.set()

    def _learn(self, health: StorageHealth) -> None:
        before, self._health = self._health, health
        self._metrics.db_ready(health.usable)
        change = describe_change(before, health)
        if change is not None:
            level, line = change
            if health.cause is not None:
                line = f"{line}: {explain(health.cause)}"
            getattr(log, level)(line, **({} if level == "info" else {"cause": health.cause}))

    async def watch(self) -> None:
        """Probe until cancelled, so that the gauge and the log are right without requests for `/ready` (PROTOCOL 11.1.5)."""
        while True:
            self._wanted = anyio.Event()
            with log_exceptions("readiness probe"):
                await self._probe()
            await anyio.sleep(REST_SECS)
            with anyio.move_on_after(WATCH_SECS - REST_SECS):
                await self._wanted.wait()

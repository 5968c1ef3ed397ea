"""`/ready` (CONTRACT A10): probes PostgreSQL, migrations, NATS and the drain state, cached and limited in time."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import structlog

from openguild_proto.effects import ComponentState, Readiness, StorageUnavailable
from openguild_runtime.background import contained
from openguild_runtime.bus.base import Bus
from openguild_runtime.metrics import Metrics
from openguild_runtime.storage.base import Storage, StorageHealth

CACHE_SECS = 1.0
PROBE_LIMIT_SECS = 0.5
WATCH_SECS = 2.0

log = structlog.get_logger("openguild.readiness")


class ReadinessProbe:
    """`serving` is set at the end of the start, `draining` by the shutdown; the rest is found out, at most once a second."""

    def __init__(
        self,
        storage: Storage,
        bus: Bus,
        metrics: Metrics,
        clock: Callable[[], float],
        *,
        storage_is_memory: bool,
        has_nats: bool,
    ) -> None:
        self.draining = False
        self.serving = False
        self.short_of_descriptors: Callable[[], bool] = lambda: False
        self._storage = storage
        self._bus = bus
        self._metrics = metrics
        self._clock = clock
        self._started = clock()
        self._memory = storage_is_memory
        self._has_nats = has_nats
        self._health = StorageHealth(database=False, migrations=False)
        self._checked_at = float("-inf")
        self._lock = anyio.Lock()

    async def __call__(self) -> Readiness:
        """The state now. Status: draining, unavailable, degraded (serving, NATS away or in part, or descriptors short) or ready."""
        health = await self._storage_health()
        nats = self._bus.trouble
        if self.draining:
            status = "draining"
        elif not (health.database and health.migrations and self.serving):
            status = "unavailable"
        elif (self._has_nats and nats is not None) or self.short_of_descriptors():
            status = "degraded"
        else:
            status = "ready"
        return Readiness(
            status=status,
            uptime_seconds=int(self._clock() - self._started),
            components=(
                self._database(health),
                self._migrations(health),
                self._nats(nats),
                ComponentState(
                    "drain",
                    "pending" if self.draining else "configured",
                    "draining" if self.draining else "not draining",
                ),
                *self._descriptors(),
            ),
        )

    def _database(self, health: StorageHealth) -> ComponentState:
        if self._memory:
            return ComponentState("database", "configured", "memory storage: everything is lost at a restart")
        return _component("database", health.database, "connection established", "not reachable")

    def _migrations(self, health: StorageHealth) -> ComponentState:
        if not health.database:
            return ComponentState("migrations", "pending", "unknown while the database is not reachable")
        return _component("migrations", health.migrations, "schema is current", "schema is not current")

    def _descriptors(self) -> tuple[ComponentState, ...]:
        """Named only while they are short."""
        if not self.short_of_descriptors():
            return ()
        return (ComponentState("descriptors", "error", "ran out a moment ago: connections wait or are refused"),)

    def _nats(self, trouble: str | None) -> ComponentState:
        if not self._has_nats:
            return ComponentState("nats", "pending", "nats.url not configured: this process serves alone")
        return _component("nats", trouble is None, "connection established", f"NATS {trouble}")

    async def _storage_health(self) -> StorageHealth:
        async with self._lock:
            if self._clock() - self._checked_at < CACHE_SECS:
                return self._health
            health = StorageHealth(database=False, migrations=False)
            with anyio.move_on_after(PROBE_LIMIT_SECS):
                try:
                    health = await self._storage.check()
                except StorageUnavailable:
                    log.debug("readiness probe: the database is not reachable")
            if health.database != self._health.database:
                if health.database:
                    log.info("database reachable")
                else:
                    log.warning("database not reachable")
            self._metrics.db_ready(health.database and health.migrations)
            self._health = health
            self._checked_at = self._clock()
            return health

    async def watch(self) -> None:
        """Probe for ever, so that the gauge and the log are true when nobody asks (D-41)."""
        while True:
            with contained("readiness probe"):
                await self._storage_health()
            await anyio.sleep(WATCH_SECS)


def _component(name: str, good: bool, yes: str, no: str) -> ComponentState:
    return ComponentState(name, "configured" if good else "error", yes if good else no)

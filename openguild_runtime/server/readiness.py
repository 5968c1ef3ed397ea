"""`/ready` (PROTOCOL 11.1): probes PostgreSQL, migrations, NATS and the drain state, cached and limited in time.

One task asks the database, each second, and sooner after a failure; `/ready` answers with what it knows, or says after
half a second that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import structlog

from openguild_proto.effects.process import ComponentState, Readiness
from openguild_proto.policy.descriptors import DescriptorBudget
from openguild_runtime.bus.base import Bus
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.storage.base import Storage, StorageHealth
from openguild_runtime.system.background import log_exceptions

CACHE_SECS = 1.0
PROBE_LIMIT_SECS = 0.5  # what `/ready` waits for an answer; the probe itself waits on
WATCH_SECS = 1.0
REST_SECS = 0.2  # between two probes, however many failures call for one

NOTHING_KNOWN = StorageHealth(database=False, migrations=False, writable=False)
NO_ANSWER = StorageHealth(database=False, migrations=False, writable=False, cause="timeout")

log = structlog.get_logger("openguild.readiness")


class ReadinessProbe:
    """`serving` is set at the end of the start, `draining` by the shutdown; the rest is found out, at most once a second."""

    def __init__(
        self,
        storage: Storage,
        bus: Bus,
        metrics: Metrics,
        budget: DescriptorBudget,
        clock: Callable[[], float],
        *,
        storage_is_memory: bool,
        has_nats: bool,
    ) -> None:
        self.draining = False
        self.serving = False
        self._storage = storage
        self._bus = bus
        self._metrics = metrics
        self._budget = budget
        self._clock = clock
        self._started = clock()
        self._memory = storage_is_memory
        self._has_nats = has_nats
        self._health = NOTHING_KNOWN
        self._checked_at = float("-inf")
        self._began: float | None = None  # the probe that is under way
        self._ended = anyio.Event()
        self._wanted = anyio.Event()

    async def __call__(self) -> Readiness:
        """The state now. Status: draining, unavailable, degraded (serving, NATS away or in part, or descriptors short) or ready."""
        health = await self._storage_health()
        nats = self._bus.problem
        if self.draining:
            status = "draining"
        elif not (health.usable and self.serving):
            status = "unavailable"
        elif (self._has_nats and nats is not None) or self._budget.is_short(self._clock()):
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
        problem = "does not take writes" if health.database else "not reachable"
        if health.cause is not None:
            problem = f"{problem} ({health.cause})"
        return _component("database", health.database and health.writable, "connection established", problem)

    def _migrations(self, health: StorageHealth) -> ComponentState:
        if not health.database:
            return ComponentState("migrations", "pending", "unknown while the database is not reachable")
        return _component("migrations", health.migrations, "schema is current", "schema is not current")

    def _descriptors(self) -> tuple[ComponentState, ...]:
        """Named only while they are short."""
        if not self._budget.is_short(self._clock()):
            return ()
        return (ComponentState("descriptors", "error", "ran out a moment ago: connections wait or are refused"),)

    def _nats(self, trouble: str | None) -> ComponentState:
        if not self._has_nats:
            return ComponentState("nats", "pending", "nats.url not configured: this process serves alone")
        return _component("nats", trouble is None, "connection established", f"NATS {trouble}")

    def doubt(self) -> None:
        """The database has failed somebody: look now."""
        self._wanted.set()

    async def _storage_health(self) -> StorageHealth:
        """What the last probe found, if that is not long ago; else what this one finds in time."""
        now = self._clock()
        if now - self._checked_at < CACHE_SECS:
            return self._health
        self._wanted.set()
        ended = self._ended
        with anyio.move_on_after(PROBE_LIMIT_SECS - (now - self._began if self._began is not None else 0.0)):
            await ended.wait()
        if not ended.is_set():
            self._metrics.db_ready(False)
            return NO_ANSWER
        return self._health

    async def _probe(self) -> None:
        self._began = self._clock()
        health = NOTHING_KNOWN
        try:
            health = await self._storage.check()
        finally:
            self._learn(health)
            self._checked_at, self._began = self._clock(), None
            ended, self._ended = self._ended, anyio.Event()
            ended.set()

    def _learn(self, health: StorageHealth) -> None:
        before, self._health = self._health, health
        self._metrics.db_ready(health.usable)
        if (health.database, health.writable, health.cause) == (before.database, before.writable, before.cause):
            return
        if not health.database:
            log.warning(f"database not reachable: {health.why}", cause=health.cause)
        elif not health.writable:
            log.warning(f"database does not take writes: {health.why}", cause=health.cause)
        elif not before.database:
            log.info("database reachable")
        elif not before.writable:
            log.info("database takes writes again")

    async def watch(self) -> None:
        """Probe for ever, so that the gauge and the log are true when nobody asks (PROTOCOL 11.1.5)."""
        while True:
            self._wanted = anyio.Event()
            with log_exceptions("readiness probe"):
                await self._probe()
            await anyio.sleep(REST_SECS)
            with anyio.move_on_after(WATCH_SECS - REST_SECS):
                await self._wanted.wait()


def _component(name: str, good: bool, yes: str, no: str) -> ComponentState:
    return ComponentState(name, "configured" if good else "error", yes if good else no)

"""The wall clock of a replica: the database's, so that replicas with different clocks agree on expiry.

`Timekeeper.wall` replaces `ClocksAndEntropy.wall`. This machine's clock, which log lines and certificates use, is compared
with it, and the operator is warned of a difference. Without a database (memory) this machine's clock is used.
"""

from __future__ import annotations

import anyio
import structlog

from openguild_proto.effects import Overloaded, StorageUnavailable
from openguild_proto.policy.shared_clock import Reading, SharedClock
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.background import log_exceptions
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy

MEASURE_SECS = 10.0
WARN_SECS = 2.0  # NTP keeps machines within milliseconds

log = structlog.get_logger("openguild.clock")


class Timekeeper:
    """The wall clock. `measure` has to be called once before times are compared; `run` repeats it."""

    def __init__(self, sources: ClocksAndEntropy, metrics: Metrics) -> None:
        self._sources = sources
        self._metrics = metrics
        self._clock = SharedClock()
        self._differs = False

    def wall(self) -> float:
        """Return the time in UTC seconds."""
        shared = self._clock.wall_ms(self._sources.monotonic())
        return self._sources.wall() if shared is None else shared / 1000

    async def measure(self, storage: Storage) -> None:
        """Read the store's clock. Raises StorageUnavailable."""
        asked = self._sources.monotonic()
        theirs = await storage.wall_ms()
        if theirs is None:
            return
        apart = self._clock.take(Reading.between(asked, self._sources.monotonic(), theirs))
        if abs(apart) >= WARN_SECS:
            log.warning(
                f"the database's clock has moved by {apart:.1f} s against this process's: all replicas follow it, and what "
                "expires does so earlier or later; see docs/runbooks.md, Clocks"
            )
        self._compare()

    def _compare(self) -> None:
        """Log when the difference becomes large, and when it ends."""
        difference = self._sources.wall() - self.wall()
        self._metrics.clock_difference(difference)
        differs = abs(difference) >= WARN_SECS
        if differs and not self._differs:
            log.warning(
                f"this machine's clock is {abs(difference):.1f} s {'ahead of' if difference > 0 else 'behind'} the database's:"
                " replicas go by the database's, but log lines and certificates go by this one; synchronise both (NTP)"
            )
        elif self._differs and not differs:
            log.info("this machine's clock agrees with the database's again")
        self._differs = differs

    async def run(self, storage: Storage) -> None:
        """Measure every MEASURE_SECS until cancelled."""
        while True:
            await anyio.sleep(MEASURE_SECS)
            with log_exceptions("reading the database's clock", StorageUnavailable, Overloaded):
                await self.measure(storage)

"""The flush: sends frames from the rings to the sockets, for a bounded time in each turn of the loop.

A ring with frames to send is dirty. One task serves the dirty rings in turn, for `TURN_SECS` of each turn of the loop.
Time is bounded, not the number of sends, because the kernel decides how long a send takes. Under load, a dirty ring
collects events until its turn, and each subscriber gets all of them in one send; when idle, the first event is sent in
the next turn of the loop. A burst that fills half of a ring within one turn is flushed at once, as far as the turn's time
allows; then the ring grows until the burst is sent, so that it overruns no subscriber that keeps up.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

import anyio
import structlog

from openguild_proto.replica.actions import Urgency
from openguild_runtime.net.ring_flush import RingFlush
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.observability.tracing import Tracing
from openguild_runtime.system.turns import Turn

log = structlog.get_logger("openguild.writer")


class Flusher:
    """Flushes all rings of a process.

    `clock` returns monotonic seconds. `ended` is called after each turn, since subscribers may have been overrun.
    """

    def __init__(
        self,
        metrics: Metrics,
        clock: Callable[[], float],
        ended: Callable[[], None],
        tracing: Tracing | None,
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._ended = ended
        self._tracing = tracing
        self._dirty: dict[str, tuple[RingFlush, float]] = {}  # by ring: its kind, and when it became dirty
        self._turn = Turn(clock)
        self._wake = anyio.Event()

    def flush(self, ring: str, urgency: Urgency, kind: RingFlush) -> None:
        """Mark `ring` as dirty, and serve it now unless `urgency` is SOON."""
        if ring not in self._dirty:
            self._dirty[ring] = kind, self._clock()
            self._wake.set()
        if urgency is not Urgency.SOON:
            self._serve(ring, completely=urgency is Urgency.COMPLETELY)

    @property
    def busy(self) -> bool:
        """Whether a ring is dirty."""
        return bool(self._dirty)

    async def run(self) -> None:
        """Serve dirty rings round-robin until cancelled; many small ones share a turn of the loop."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            while self._dirty:
                await self._round(list(self._dirty))

    async def _round(self, rings: list[str]) -> None:
        """Serve each of `rings` once, over several turns of the loop if necessary."""
        waiting = deque(rings)
        while waiting:
            while waiting and self._turn.left() > 0:
                ring = waiting.popleft()
                if ring in self._dirty:  # else `flush` has served it meanwhile
                    self._serve(ring)
            self._ended()
            await asyncio.sleep(0)

    def _serve(self, ring: str, *, completely: bool = False) -> None:
        """Send chunks of a dirty ring while the turn has time, or all of them."""
        kind, since = self._dirty[ring]
        while (max_secs := math.inf if completely else self._turn.left()) > 0:
            try:
                served, done = kind.chunk(ring, max_secs)
            except Exception:  # one ring's failure must not end the others
                log.exception("a ring could not be flushed", ring=ring)
                served, done = 0, True
            self._metrics.flushed(served)
            if done:
                del self._dirty[ring]
                self._metrics.delivery_latency(self._clock() - since)
                kind.flushed(ring)
                if self._tracing is not None:
                    self._tracing.flushed(ring)
                return

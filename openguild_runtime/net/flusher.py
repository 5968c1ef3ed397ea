"""The flush: moves frames from the rings to the sockets, for a bounded time in each turn, so that the loop never stalls.

A channel with something to send is marked dirty; one task serves the dirty channels in turn, for `TURN_SECS` of each
turn of the loop. Time is bounded and not sends, because what a send takes is up to the kernel. Under load a marked
channel collects events until its turn, and each subscriber gets all of them in one send; when idle the first event leaves
at the next turn of the loop. A burst that fills half of the ring within one turn of the loop is flushed at once as far as
the turn's time allows; then the ring stretches until the burst has left, so that it overruns nobody who keeps up.

With the compiled extension a chunk is one call that sends straight from the ring's memory (ext/flush.pyx); without
it the same steps are taken here, one subscriber at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio
import anyio.lowlevel
import structlog

from openguild_proto.fanout.hub import Hub, Subscriber
from openguild_proto.fanout.native import NATIVE
from openguild_proto.fanout.native import Ring as NativeRing
from openguild_proto.fanout.ring import Ring as PureRing
from openguild_proto.replica.actions import Haste
from openguild_runtime.net.transport import SEND_BYTES, Transport
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.observability.tracing import Tracing
from openguild_runtime.system.turns import Turn

NativeFlush = Callable[[PureRing, int, int, float], tuple[int, int, list[tuple[int, bytes, int]]]]


def _load_native() -> NativeFlush | None:
    try:
        from openguild_runtime.net._flush import flush
    except ImportError:  # no compiler at install time: the pure path serves
        return None
    return flush


CHUNK_SENDS = 128  # of one call of the native flush; who has to be looked after is looked after between two of them
PURE_SENDS = 8  # sends between two looks at the clock, without it

log = structlog.get_logger("openguild.writer")


class Flusher:
    """One per process. `clock`: monotonic seconds. `ended`: called after a round, which may have overrun subscribers."""

    def __init__(
        self,
        hub: Hub,
        metrics: Metrics,
        clock: Callable[[], float],
        ended: Callable[[], None],
        tracing: Tracing | None,
    ) -> None:
        self._hub = hub
        self._metrics = metrics
        self._clock = clock
        self._ended = ended
        self._tracing = tracing
        self._dirty: dict[str, float] = {}
        self._turn = Turn(clock)
        self._wake = anyio.Event()
        self._native = _load_native() if NATIVE and hub.ring_type is NativeRing else None

    def flush(self, ring: str, haste: Haste) -> None:
        """`ring` has frames that some subscriber has not got."""
        if ring not in self._dirty:
            self._dirty[ring] = self._clock()
            self._wake.set()
        if haste is not Haste.SOON:
            self._serve(ring, completely=haste is Haste.COMPLETELY)

    @property
    def busy(self) -> bool:
        """Some ring is not flushed yet."""
        return bool(self._dirty)

    async def run(self) -> None:
        """Serve dirty rings for ever, round-robin; many small ones share a turn of the loop."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            while self._dirty:
                await self._turn.each(list(self._dirty), self._serve_in_turn)
                self._ended()
                await anyio.lowlevel.checkpoint()  # what is published in this turn shares the sends of the next round

    def _serve_in_turn(self, ring: str) -> None:
        if ring in self._dirty:  # else a burst has been flushed meanwhile
            self._serve(ring)
            if self._turn.left() <= 0:
                self._ended()

    def _serve(self, ring: str, *, completely: bool = False) -> None:
        """Chunks of a dirty ring while the turn has time, or all of them."""
        while (max_secs := math.inf if completely else self._turn.left()) > 0:
            try:
                served, done = self._flush_chunk(ring, max_secs)
            except Exception:  # one ring's failure must not end the others
                log.exception("a ring could not be flushed", ring=ring)
                served, done = 0, True
            self._metrics.flushed(served)
            if done:
                self._metrics.delivery_latency(self._clock() - self._dirty.pop(ring))
                if self._hub.is_open(ring):
                    self._hub.flushed(ring)
                if self._tracing is not None:
                    self._tracing.flushed(ring)
                return

    def _flush_chunk(self, ring: str, max_secs: float) -> tuple[int, bool]:
        """Serve some subscribers, SEND_BYTES each: how many, and whether nobody is left who could be served."""
        if not self._hub.is_open(ring):
            return 0, True
        if self._native is not None:
            served, left = self._flush_native(self._native, ring, max_secs)
            return served, served < CHUNK_SENDS and not left
        plan = self._hub.flush_plan(ring, PURE_SENDS)
        for subscriber in plan:
            self._flush_one(subscriber)
        return len(plan), len(plan) < PURE_SENDS and not self._hub.flush_plan(ring, 1)

    def _flush_native(self, flush: NativeFlush, ring: str, max_secs: float) -> tuple[int, int]:
        served, left, troubles = flush(self._hub.frames(ring), CHUNK_SENDS, SEND_BYTES, max_secs)
        for slot, rest, error in troubles:
            transport = self._hub.at(ring, slot).owner
            if isinstance(transport, Transport):
                if rest:
                    transport.connection.outbox.append(rest)
                if error:
                    transport.abort()
                else:
                    transport.park()
        return served, left

    def _flush_one(self, subscriber: Subscriber) -> None:
        transport = subscriber.owner
        if not isinstance(transport, Transport) or transport.closing:
            subscriber.parked = True  # its connection server is about to unsubscribe it
            return
        if transport.connection.outbox:
            transport.park()
            return
        sent = transport.send(self._hub.take(subscriber, SEND_BYTES))
        if sent < 0:
            transport.park()
            return
        rest = self._hub.sent(subscriber, sent)
        if rest:
            transport.connection.outbox.append(rest)
            transport.park()

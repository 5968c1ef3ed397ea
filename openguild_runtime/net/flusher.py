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
from typing import Protocol

import anyio
import anyio.lowlevel
import structlog

from openguild_proto.fanout.hub import Hub, Subscriber
from openguild_proto.fanout.native import NATIVE
from openguild_proto.fanout.native import Ring as NativeRing
from openguild_proto.fanout.ring import Ring as PureRing
from openguild_proto.limits import TURN_SECS
from openguild_runtime.net.transport import SEND_BYTES, Transport
from openguild_runtime.observability.metrics import Metrics

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


class FlushHandler(Protocol):
    """What the flusher tells its owner."""

    def flush_ended(self) -> None:
        """A round is over: the rings may have overrun a subscriber."""

    def ring_flushed(self, ring: str) -> None:
        """Every subscriber that takes bytes has what the ring has."""


class Flusher:
    """One per process. `clock`: monotonic seconds."""

    def __init__(
        self,
        hub: Hub,
        metrics: Metrics,
        clock: Callable[[], float],
        handler: FlushHandler,
    ) -> None:
        self._hub = hub
        self._metrics = metrics
        self._clock = clock
        self._handler = handler
        self._dirty: dict[str, float] = {}
        self._until: float | None = None  # when this turn's time is over; None: nothing was sent in it yet
        self._wake = anyio.Event()
        self._native = _load_native() if NATIVE and hub.ring_type is NativeRing else None

    def mark(self, stream: str) -> None:
        """`stream` has frames that some subscriber has not got."""
        if stream not in self._dirty:
            self._dirty[stream] = self._clock()
            self._wake.set()

    def hurry(self, stream: str, *, completely: bool) -> None:
        """A burst fills the ring: flush it as far as this turn's time allows, or `completely` whatever it takes."""
        self.mark(stream)
        until = math.inf if completely else self._turn_ends()
        if self._clock() < until:
            self._serve(stream, until)

    def _turn_ends(self) -> float:
        """The task begins a new turn's time when it comes to its turn, which is the next one: something is dirty."""
        if self._until is None:
            self._until = self._clock() + TURN_SECS
        return self._until

    @property
    def busy(self) -> bool:
        """Some stream is not flushed yet."""
        return bool(self._dirty)

    async def run(self) -> None:
        """Serve dirty streams for ever, round-robin."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            while self._dirty:
                await self._round()
            self._until = None

    async def _round(self) -> None:
        """Every dirty stream once, as far as the turn's time allows; many small ones share a turn of the loop."""
        until = self._until = self._clock() + TURN_SECS
        for stream in list(self._dirty):
            if stream not in self._dirty:  # a burst has been flushed meanwhile
                continue
            self._serve(stream, until)
            if self._clock() >= until:
                self._handler.flush_ended()
                await anyio.lowlevel.checkpoint()
                until = self._until = self._clock() + TURN_SECS
        self._handler.flush_ended()
        await anyio.lowlevel.checkpoint()

    def _serve(self, stream: str, until: float) -> bool:
        """Chunks of a dirty stream while there is time, at least one of the smallest: whether the stream is flushed."""
        while True:
            left = until - self._clock()
            served, done = self._contained_chunk(stream, max(left, 0.0))
            self._metrics.flushed(served)
            if done:
                self._metrics.delivery_latency(self._clock() - self._dirty.pop(stream))
                if self._hub.is_open(stream):
                    self._hub.flushed(stream)
                self._handler.ring_flushed(stream)
                return True
            if self._clock() >= until:
                return False

    def _contained_chunk(self, stream: str, max_secs: float) -> tuple[int, bool]:
        try:
            return self._flush_chunk(stream, max_secs)
        except Exception:  # one stream's failure must not end the others
            log.exception("a stream could not be flushed", stream=stream)
            return 0, True

    def _flush_chunk(self, stream: str, max_secs: float) -> tuple[int, bool]:
        """Serve some subscribers, SEND_BYTES each: how many, and whether nobody is left who could be served."""
        if not self._hub.is_open(stream):
            return 0, True
        if self._native is not None:
            served, left = self._flush_native(self._native, stream, max_secs)
            return served, served < CHUNK_SENDS and not left
        plan = self._hub.flush_plan(stream, PURE_SENDS)
        for subscriber in plan:
            self._flush_one(subscriber)
        return len(plan), len(plan) < PURE_SENDS and not self._hub.flush_plan(stream, 1)

    def _flush_native(self, flush: NativeFlush, stream: str, max_secs: float) -> tuple[int, int]:
        served, left, troubles = flush(self._hub.frames(stream), CHUNK_SENDS, SEND_BYTES, max_secs)
        for slot, rest, error in troubles:
            transport = self._hub.at(stream, slot).owner
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

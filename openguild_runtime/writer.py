"""The flush: moves frames from the rings to the sockets, in chunks, so that the loop never stalls.

A channel with something to send is marked dirty; one task serves the dirty channels in turn, a bounded number of
sends between two turns of the loop. Under load a marked channel collects events until its turn, and each subscriber
gets all of them in one send; when idle the first event leaves at the next turn of the loop. A burst that fills half of
the ring within one turn of the loop is flushed at once, so that it overruns nobody who keeps up.

With the compiled extension a chunk is one call that sends straight from the ring's memory (ext/flush.pyx); without
it the same steps are taken here, one subscriber at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel
import structlog

from openguild_proto.fanout.hub import Hub, Subscriber
from openguild_proto.fanout.native import NATIVE
from openguild_proto.fanout.native import Ring as NativeRing
from openguild_proto.fanout.ring import Ring as PureRing
from openguild_runtime.metrics import Metrics
from openguild_runtime.peer import SEND_BYTES, Peer

NativeFlush = Callable[[PureRing, int, int], tuple[int, int, list[tuple[int, bytes, int]]]]


def _load_native() -> NativeFlush | None:
    try:
        from openguild_runtime._flush import flush
    except ImportError:  # no compiler at install time: the pure path serves
        return None
    return flush


CHUNK_SENDS = 128  # sends between two turns of the loop: about a millisecond


log = structlog.get_logger("openguild.writer")


class Flusher:
    """`lagged` is called after a round, when the rings may have overrun a subscriber; `flushed(stream)` when all have got
    what the stream has."""

    def __init__(
        self,
        hub: Hub,
        metrics: Metrics,
        clock: Callable[[], float],
        *,
        lagged: Callable[[], None],
        flushed: Callable[[str], None] | None = None,
    ) -> None:
        self._hub = hub
        self._metrics = metrics
        self._clock = clock
        self._lagged = lagged
        self._flushed = flushed
        self._dirty: dict[str, float] = {}
        self._wake = anyio.Event()
        self._native = _load_native() if NATIVE and hub.ring_type is NativeRing else None

    def mark(self, stream: str) -> None:
        """`stream` has frames that some subscriber has not got."""
        if stream not in self._dirty:
            self._dirty[stream] = self._clock()
            self._wake.set()

    def publish(self, stream: str, frame: bytes, sequence: int) -> None:
        """Append the prepared `frame` to the stream's ring, to leave at the next turn of the loop at the latest."""
        crowded = self._hub.publish(stream, frame, sequence)
        self.mark(stream)
        while crowded and not self._serve(stream, CHUNK_SENDS)[1]:
            pass

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

    async def _round(self) -> None:
        """One chunk for each dirty stream; many small ones share a turn of the loop."""
        budget = CHUNK_SENDS
        for stream in list(self._dirty):
            if stream not in self._dirty:  # a burst has been flushed meanwhile
                continue
            served, _ = self._serve(stream, budget)
            budget -= max(served, 1)
            if budget <= 0:
                self._lagged()
                await anyio.lowlevel.checkpoint()
                budget = CHUNK_SENDS
        self._lagged()
        await anyio.lowlevel.checkpoint()

    def _serve(self, stream: str, limit: int) -> tuple[int, bool]:
        """One chunk of a dirty stream: how many sends, and whether the stream is flushed."""
        served, done = self._contained_chunk(stream, limit)
        self._metrics.flushed(served)
        if done:
            self._metrics.delivery_latency(self._clock() - self._dirty.pop(stream))
            if self._hub.is_open(stream):
                self._hub.flushed(stream)
            if self._flushed is not None:
                self._flushed(stream)
        return served, done

    def _contained_chunk(self, stream: str, limit: int) -> tuple[int, bool]:
        try:
            return self._flush_chunk(stream, limit)
        except Exception:  # one stream's failure must not end the others
            log.exception("a stream could not be flushed", stream=stream)
            return 0, True

    def _flush_chunk(self, stream: str, limit: int) -> tuple[int, bool]:
        """Serve up to `limit` subscribers, SEND_BYTES each; True: nobody is left who could be served."""
        if not self._hub.is_open(stream):
            return 0, True
        if self._native is not None:
            served, left = self._flush_native(self._native, stream, limit)
            return served, served < limit and not left
        plan = self._hub.flush_plan(stream, limit)
        for subscriber in plan:
            self._flush_one(subscriber)
        return len(plan), len(plan) < limit and not self._hub.flush_plan(stream, 1)

    def _flush_native(self, flush: NativeFlush, stream: str, limit: int) -> tuple[int, int]:
        served, left, troubles = flush(self._hub.ring(stream), limit, SEND_BYTES)
        for slot, rest, error in troubles:
            peer = self._hub.at(stream, slot).owner
            if isinstance(peer, Peer):
                if rest:
                    peer.connection.outbox.append(rest)
                if error:
                    peer.abort()
                else:
                    peer.park()
        return served, left

    def _flush_one(self, subscriber: Subscriber) -> None:
        peer = subscriber.owner
        if not isinstance(peer, Peer) or peer.closing:
            subscriber.parked = True  # its driver is about to unsubscribe it
            return
        if peer.connection.outbox:
            peer.park()
            return
        sent = peer.send(self._hub.take(subscriber, SEND_BYTES))
        if sent < 0:
            peer.park()
            return
        rest = self._hub.sent(subscriber, sent)
        if rest:
            peer.connection.outbox.append(rest)
            peer.park()

"""The flush: moves frames from the rings to the sockets, in chunks, so that the loop never stalls.

A channel with something to send is marked dirty; one task serves the dirty channels in turn, a bounded number of
sends at a time. Under load a marked channel collects events until its turn, and each subscriber gets all of them in
one send; when idle the first event leaves at the next loop turn.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel

from openguild_proto.fanout.hub import Hub, Subscriber
from openguild_runtime.metrics import Metrics
from openguild_runtime.peer import SEND_BYTES, Peer

CHUNK_SENDS = 128  # sends between two turns of the loop: about a millisecond


class Flusher:
    """`lagged` is called with each subscriber that the ring has overrun."""

    def __init__(self, hub: Hub, metrics: Metrics, clock: Callable[[], float], lagged: Callable[[], None]) -> None:
        self._hub = hub
        self._metrics = metrics
        self._clock = clock
        self._lagged = lagged
        self._dirty: dict[str, float] = {}
        self._wake = anyio.Event()

    def mark(self, stream: str) -> None:
        """`stream` has frames that some subscriber has not got."""
        if stream not in self._dirty:
            self._dirty[stream] = self._clock()
            self._wake.set()

    async def run(self) -> None:
        """Serve dirty streams for ever, round-robin."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            while self._dirty:
                for stream in list(self._dirty):
                    if self._flush_chunk(stream) == 0:
                        self._metrics.delivery_latency(self._clock() - self._dirty.pop(stream))
                    await anyio.lowlevel.checkpoint()
                self._lagged()

    def _flush_chunk(self, stream: str) -> int:
        if not self._hub.is_open(stream):
            return 0
        plan = self._hub.flush_plan(stream, CHUNK_SENDS)
        for subscriber in plan:
            self._flush_one(subscriber)
        return len(plan)

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

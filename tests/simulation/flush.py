"""The flush, as the runtime's flusher does it without the extension: dirty rings in turn, some sockets of each at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from openguild_proto.fanout.hub import Hub, Subscriber
from openguild_proto.replica.actions import Urgency
from tests.simulation.clock import Clock
from tests.simulation.sockets import StreamSocket

TURN_SECS = 0.0005  # between two rounds
SOCKETS = 8  # of a ring in a chunk
CHUNKS = 3  # of a ring in a round


class Flusher:
    """Flushes rings. `flushed()` is called after each round."""

    def __init__(self, clock: Clock, hub: Hub, send_bytes: int, flushed: Callable[[], None]) -> None:
        self.dead = False
        self._clock = clock
        self._hub = hub
        self._send_bytes = send_bytes
        self._flushed = flushed
        self._dirty: dict[str, None] = {}
        self._round_is_due = False

    def flush(self, ring: str, urgency: Urgency) -> None:
        """Mark a ring as dirty: a subscriber lacks some of its events."""
        self._dirty[ring] = None
        if not self._round_is_due:
            self._round_is_due = True
            self._clock.later(TURN_SECS, self._round)
        if urgency is Urgency.NOW:
            self._serve(ring, 1)
        elif urgency is Urgency.COMPLETELY:
            while not self._serve(ring, CHUNKS):
                pass

    def _round(self) -> None:
        self._round_is_due = False
        if self.dead:
            return
        for ring in list(self._dirty):
            self._serve(ring, CHUNKS)
        if self._dirty:
            self._round_is_due = True
            self._clock.later(TURN_SECS, self._round)
        self._flushed()

    def _serve(self, ring: str, chunks: int) -> bool:
        """Serve a ring; return whether it is flushed."""
        for _ in range(chunks):
            if self.flush_chunk(ring):
                self._dirty.pop(ring, None)
                if self._hub.is_open(ring):
                    self._hub.flushed(ring)
                return True
        return False

    def flush_chunk(self, ring: str) -> bool:
        """Serve some subscribers; return whether no servable one is left."""
        if not self._hub.is_open(ring):
            return True
        plan = self._hub.flush_plan(ring, SOCKETS)
        for subscriber in plan:
            self.flush_one(subscriber)
        return len(plan) < SOCKETS and not self._hub.flush_plan(ring, 1)

    def flush_one(self, subscriber: Subscriber) -> None:
        socket = cast("StreamSocket", subscriber.owner)
        if socket.has_ended or socket.is_closing:
            subscriber.parked = True
        elif socket.outbox or not (sent := socket.send(self._hub.take(subscriber, self._send_bytes))):
            socket.park()
        elif rest := self._hub.sent(subscriber, sent):
            socket.outbox += rest
            socket.park()

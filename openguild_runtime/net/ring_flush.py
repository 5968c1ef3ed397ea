"""Sends frames from rings to their readers, for streams and for the gateway.

With the compiled extension, a chunk is one call that sends from the ring's memory (ext/flush.pyx). Without it, this module
does the same in Python, one reader at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from openguild_proto.fanout.hub import Hub, Subscriber
from openguild_proto.fanout.native import NATIVE
from openguild_proto.fanout.native import Ring as NativeRing
from openguild_proto.gateway.feeds import Feeds
from openguild_runtime.net.transport import SEND_BYTES, Transport

NativeFlush = Callable[..., tuple[int, int, list[tuple[int, bytes, int]]]]

CHUNK_SENDS = 1_024  # in one call of the native flush, if time allows
PURE_SENDS = 8  # between two checks of the clock, without the extension


def load_native(hub: Hub) -> NativeFlush | None:
    """Return the compiled flush, or None if it or the compiled ring is not used."""
    if not NATIVE or hub.ring_type is not NativeRing:
        return None
    try:
        from openguild_runtime.net._flush import flush
    except ImportError:  # no compiler at install time
        return None
    return flush


class RingFlush(Protocol):
    """The flush of one kind of rings."""

    def chunk(self, key: str, max_secs: float) -> tuple[int, bool]:
        """Send at most SEND_BYTES to each of some readers; return their number, and True if no reader is left to serve."""

    def flushed(self, key: str) -> None:
        """Note that every reader of the ring has been served."""


class StreamRings:
    """The rings of channel streams and notification streams; each reader is a subscriber."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._native = load_native(hub)

    def flushed(self, key: str) -> None:
        if self._hub.is_open(key):
            self._hub.flushed(key)

    def chunk(self, key: str, max_secs: float) -> tuple[int, bool]:
        if not self._hub.is_open(key):
            return 0, True
        if self._native is not None:
            served, left = self._flush_native(self._native, key, max_secs)
            return served, served < CHUNK_SENDS and not left
        plan = self._hub.flush_plan(key, PURE_SENDS)
        for subscriber in plan:
            self._flush_one(subscriber)
        return len(plan), len(plan) < PURE_SENDS and not self._hub.flush_plan(key, 1)

    def _flush_native(self, flush: NativeFlush, key: str, max_secs: float) -> tuple[int, int]:
        served, left, troubles = flush(self._hub.frames(key), CHUNK_SENDS, SEND_BYTES, max_secs)
        for slot, rest, error in troubles:
            transport = self._hub.at(key, slot).owner
            if isinstance(transport, Transport):
                _look_after(transport, rest, error)
        return served, left

    def _flush_one(self, subscriber: Subscriber) -> None:
        transport = subscriber.owner
        if not isinstance(transport, Transport) or transport.closing:
            subscriber.parked = True  # it is about to be unsubscribed
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


class GatewayRings:
    """The rings of the gateway's feeds; each reader is a slot with the descriptor of its socket."""

    def __init__(self, feeds: Feeds, transports: Mapping[int, Transport]) -> None:
        self._feeds = feeds
        self._transports = transports  # by descriptor
        self._native = load_native(feeds.hub)

    def flushed(self, key: str) -> None:
        if self._feeds.hub.is_open(key):
            self._feeds.hub.flushed(key)
            self._feeds.end_overrun(key)

    def chunk(self, key: str, max_secs: float) -> tuple[int, bool]:
        hub = self._feeds.hub
        if not hub.is_open(key):
            return 0, True
        if self._native is None:
            served, left, rests = self._feeds.flush(key, PURE_SENDS, SEND_BYTES, self._send)
            for handle, rest in rests:
                _look_after(self._transports[handle], rest, 0)
            return served, not left
        ring = hub.frames(key)
        served, count, troubles = self._native(ring, CHUNK_SENDS, SEND_BYTES, max_secs, self._feeds.gates)
        for slot, rest, error in troubles:
            transport = self._transports.get(ring.handle(slot))
            self._feeds.parked(key, slot)
            if transport is not None and (rest or error):
                _look_after(transport, rest, error)
        return served, served < CHUNK_SENDS and not count

    def _send(self, handle: int, messages: bytes) -> int:
        transport = self._transports[handle]
        return max(transport.send(messages), 0)


def _look_after(transport: Transport, rest: bytes, error: int) -> None:
    """Continue with the pump of a reader that did not get everything, or abort it after an error."""
    if rest:
        transport.connection.outbox.append(rest)
    if error:
        transport.abort()
    else:
        transport.park()

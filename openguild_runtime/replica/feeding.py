"""Feeds sockets that the flush cannot serve: those that replay the log, and those whose send buffer was full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from openguild_proto.fanout.hub import Subscriber
from openguild_proto.replica.replica import Replica
from openguild_runtime.net.transport import SEND_BYTES, FeedResult, Transport


class ReplicaFeeder:
    """The `Feeder` of a replica's streams. `perform_actions` is called after each input; `clock` returns monotonic seconds."""

    def __init__(self, replica: Replica, clock: Callable[[], float], perform_actions: Callable[[], None]) -> None:
        self._replica = replica
        self._clock = clock
        self._perform_actions = perform_actions

    def feed(self, transport: Transport) -> FeedResult:
        """Send a page of the log or a span of the ring. DONE means that nothing is left, or that a `Replay` action follows."""
        subscriber = transport.subscriber
        if subscriber is None:
            return FeedResult.DONE
        if subscriber.replaying:
            return self._feed_page(transport, subscriber)
        span = self._replica.hub.take(subscriber, SEND_BYTES)
        if not span:
            return FeedResult.DONE
        sent = transport.send(span)
        if sent >= 0:
            transport.connection.outbox.append(self._replica.hub.sent(subscriber, sent))
        elif not transport.closing:
            return FeedResult.BLOCKED
        return FeedResult.MORE

    def _feed_page(self, transport: Transport, subscriber: Subscriber) -> FeedResult:
        pieces = self._replica.next_pages(transport, now=self._clock())
        if pieces is None:
            asyncio.get_running_loop().call_soon(
                self._perform_actions
            )  # after the pump has ended, because `Replay` starts it again
            return FeedResult.DONE
        self._perform_actions()
        for last, piece in pieces:
            if not subscriber.replaying:
                break  # closed meanwhile
            transport.connection.outbox.append(piece)
            at_once = transport.push()
            if not self._replica.replayed(transport, last) or not at_once:
                break  # queue one piece for a slow reader; the rest is read from the log again
        subscriber.parked = True  # it may be live by now, but the pump still owns the write side
        return FeedResult.MORE

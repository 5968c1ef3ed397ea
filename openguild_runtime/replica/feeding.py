"""Feeds sockets that the flush cannot serve: those that replay the log, and those whose send buffer is full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from openguild_proto.fanout.hub import Subscriber
from openguild_proto.replica.replica import Replica
from openguild_runtime.net.transport import SEND_BYTES, FeedResult, Transport


class ReplicaFeeder:
    """The `Feeder` of a replica's streams. `carry_out` is called after each input of the replica; `clock`: monotonic seconds."""

    def __init__(self, replica: Replica, clock: Callable[[], float], carry_out: Callable[[], None]) -> None:
        self._replica = replica
        self._clock = clock
        self._carry_out = carry_out

    def feed(self, transport: Transport) -> FeedResult:
        """Do one step: send a page of the log, or a span of the ring. Return done if nothing is left, or if a `Replay` follows."""
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
                self._carry_out
            )  # when the pump has ended: the `Replay` starts it again
            return FeedResult.DONE
        self._carry_out()
        for last, piece in pieces:
            if not subscriber.replaying:
                break  # the socket was closed during the write
            transport.connection.outbox.append(piece)
            at_once = transport.push()
            if not self._replica.replayed(transport, last) or not at_once:
                break  # a slow reader gets one piece at a time; the rest is read again later
        subscriber.parked = True  # it may be live now, but the pump still feeds it
        return FeedResult.MORE

"""Feeds sockets that the flush cannot serve: those that replay the log, and those whose kernel takes no more for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from openguild_proto.fanout.hub import SubscriberState
from openguild_proto.replica.replica import Replica
from openguild_runtime.net.transport import SEND_BYTES, Transport


class Replays:
    """One per replica. `carry_out` is called after each input of the replica; `clock`: monotonic seconds."""

    def __init__(self, replica: Replica, clock: Callable[[], float], carry_out: Callable[[], None]) -> None:
        self._replica = replica
        self._clock = clock
        self._carry_out = carry_out
        self._waiting: dict[Transport, asyncio.Future[None]] = {}  # for a page of the log

    def resume(self, transport: Transport) -> None:
        """The page that the socket waited for is there, or the socket begins to replay."""
        read = self._waiting.pop(transport, None)
        if read is not None and not read.done():
            read.set_result(None)
        transport.park()

    async def feed(self, transport: Transport) -> bool:
        """One step: a page of the log, or a span of the ring. False: nothing is left."""
        subscriber = transport.subscriber
        if subscriber is None:
            return False
        if subscriber.state is SubscriberState.REPLAYING:
            await self._replay(transport)
            subscriber.parked = True  # live by now, perhaps, and still the pump's
            return True
        if subscriber.state is not SubscriberState.LIVE:
            return False
        span = self._replica.hub.take(subscriber, SEND_BYTES)
        if not span:
            return False
        sent = transport.send(span)
        if sent < 0:
            if not transport.closing:
                await transport.socket.writable()
            return True
        rest = self._replica.hub.sent(subscriber, sent)
        if rest:
            transport.connection.outbox.append(rest)
        return True

    async def _replay(self, transport: Transport) -> None:
        pieces = self._replica.next_pages(transport, now=self._clock())
        if pieces is None:
            read = self._waiting[transport] = asyncio.get_running_loop().create_future()
            self._carry_out()
            await read
            return
        self._carry_out()
        for last, piece in pieces:
            if transport.subscriber is None or not transport.subscriber.replaying:
                return  # left or closed meanwhile
            transport.connection.outbox.append(piece)
            at_once = transport.push()
            if not self._replica.replayed(transport, last) or not at_once:
                return  # a slow reader holds one piece; when it has taken that, the rest is read again

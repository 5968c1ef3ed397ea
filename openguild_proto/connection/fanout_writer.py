"""The write side of a connection that also reads a ring of a `Hub`: its own queue goes first, then whole frames of the ring.

    writer = FanoutWriter(conn, hub)
    conn.accept(now)
    writer.subscribe("room", since=hub.head("room"), owner=client)
    ...
    is_done = writer.write(sock.send, now)  # False: call it again when the socket is writable

It ensures these rules: replies never cut a frame of the ring, the flush skips a blocked reader, the write deadline runs while the
reader is blocked, and a connection that has ended no longer reads its ring.
"""

from __future__ import annotations

from collections.abc import Callable

from openguild_proto.connection.server import ServerConnection
from openguild_proto.errors import LocalProtocolError
from openguild_proto.fanout.hub import Hub, Lagged, Subscriber
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode

SEND_BYTES = 65_536  # maximum for one call of `send`


class FanoutWriter:
    """Sends what one connection has queued, and the frames of its `subscriber` (None before `subscribe`)."""

    __slots__ = ("_conn", "_hub", "subscriber")

    def __init__(self, conn: ServerConnection, hub: Hub) -> None:
        self._conn = conn
        self._hub = hub
        self.subscriber: Subscriber | None = None

    def subscribe(self, ring: str, since: int, owner: object = None) -> Subscriber:
        """Read a ring after the sequence `since`. While the subscriber is replaying, put frames from storage into `conn.outbox`.

        Raises LocalProtocolError if the connection is not an open WebSocket, already reads a ring, or `since` is beyond the head.
        """
        if not self._conn.is_open or self.subscriber is not None:
            raise LocalProtocolError("an open WebSocket reads one ring")
        self.subscriber = self._hub.subscribe(ring, since, owner)
        return self.subscriber

    def write(self, send: Callable[[bytes | memoryview], int], now: float) -> bool:
        """Send until nothing is left (True) or the socket is full (False: call again when the socket is writable).

        `send`: `sock.send` of a non-blocking socket, or any function that returns the number of bytes accepted and may raise
        BlockingIOError. Its other exceptions are not caught: they mean that the socket is broken.
        """
        conn, subscriber = self._conn, self.subscriber
        if subscriber is not None and not conn.is_open:
            subscriber.leave()
        while part := conn.outbox.peek(SEND_BYTES):
            sent = _accepted(send, part)
            conn.outbox.consume(sent)
            conn.wrote(sent, now)
            if sent < len(part):
                return self._blocked(now)
        while subscriber is not None and (span := self._hub.take(subscriber, SEND_BYTES)):
            sent = _accepted(send, span)
            conn.outbox.append(self._hub.sent(subscriber, sent))  # the unsent rest of a frame is sent first next time
            conn.wrote(sent, now)
            if sent < len(span):
                return self._blocked(now)
        conn.write_idle(now)
        if subscriber is not None:
            subscriber.parked = False
        return True

    def _blocked(self, now: float) -> bool:
        self._conn.write_blocked(now)
        if self.subscriber is not None:
            self.subscriber.parked = True
        return False

    def close_lagged(self, lagged: Lagged, now: float) -> None:
        """Close the connection of a subscriber that `Hub.take_lagged` returned, with 1008 and the sequence to resume from.

        Call `write` next.
        """
        self._conn.close(CloseCode.POLICY_VIOLATION, reasons.lagged(lagged.missed, lagged.resume_from), now)

    def end(self) -> None:
        """Stop reading the ring, because the socket is closed. Safe to repeat."""
        if self.subscriber is not None:
            self.subscriber.leave()


def _accepted(send: Callable[[bytes | memoryview], int], data: bytes | memoryview) -> int:
    try:
        return send(data)
    except BlockingIOError:
        return 0

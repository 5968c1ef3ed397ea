"""A replica's end of a stream: its outbox, and the pump that writes while the flush does not."""

from __future__ import annotations

from typing import Protocol

from openguild_proto.fanout.hub import Hub, Subscriber, SubscriberState
from openguild_proto.http.message import OpenStream
from openguild_proto.replica.pages import Pieces
from openguild_proto.ws.frames import close_frame
from tests.simulation.clock import Clock
from tests.simulation.pipes import Pipe

CLOSE_SECS = 5.0  # from the server's close frame to the client's
WRITE_SECS = 10.0  # without any progress


class Feeder(Protocol):
    """The parts of a process that a socket needs."""

    clock: Clock
    hub: Hub
    send_bytes: int  # the largest send

    @property
    def control_failed_at(self) -> float:
        """When the control log was last unreadable."""

    def take(self, subscriber: Subscriber) -> bytes:
        """Return the bytes of the ring that one send takes."""

    def next_pages(self, socket: StreamSocket) -> Pieces | None:
        """Return frames from the log."""

    def replayed(self, socket: StreamSocket, upto: int) -> bool:
        """Record that the socket has got them."""

    def gone(self, socket: StreamSocket) -> None:
        """Record that the connection has ended."""


class StreamSocket:
    """`stream` and `subscriber` are the replica's, which removes them at the end; `opened` stays.

    The rest of a partly sent frame waits in the outbox.
    """

    def __init__(self, feeder: Feeder, pipe: Pipe, opened: OpenStream) -> None:
        self.opened = opened
        self.stream: OpenStream | None = None
        self.subscriber: Subscriber | None = None
        self.outbox = bytearray()
        self.is_closing = False
        self.has_ended = False
        self.without_right_since: float | None = None  # set by the check of rights
        self.feeder = feeder
        self._pipe = pipe
        self._is_pumping = False
        self._is_blocked = False
        self._waits_for_page = False
        self._progress = 0  # the bytes that the pipe has accepted

    # --- writing -------------------------------------------------------------------------------------

    def send(self, data: bytes) -> int:
        """Return the number of accepted bytes; 0 for none."""
        sent = self._pipe.send(data)
        self._progress += sent
        return sent

    def push(self) -> bool:
        """Send the outbox as far as the pipe accepts it. Return False if bytes are left."""
        while self.outbox:
            sent = self.send(bytes(self.outbox[: self.feeder.send_bytes]))
            if not sent:
                return self.has_ended
            del self.outbox[:sent]
        return True

    def park(self) -> None:
        """Let the pump take over, because the flush cannot send what the subscriber has."""
        if self._is_pumping:
            if self._waits_for_page:
                self._waits_for_page = False
                self.feeder.clock.later(0.0, self._pump)
            return
        self._is_pumping = True
        self._set_parked(True)
        self.feeder.clock.later(0.0, self._pump)

    def has_room(self) -> None:
        if self._is_blocked:
            self._is_blocked = False
            self._pump()

    def _pump(self) -> None:
        """Write until nothing is left: the outbox, pages of the log, then the ring."""
        while not self.has_ended:
            if not self.push():
                self._wait_for_room()
                return
            subscriber = self.subscriber
            if self.is_closing or subscriber is None:
                break
            if subscriber.state is SubscriberState.REPLAYING:
                if not self._replay():
                    return
            elif subscriber.state is not SubscriberState.LIVE or not (span := self.feeder.take(subscriber)):
                break
            elif sent := self.send(span):
                self.outbox += self.feeder.hub.sent(subscriber, sent)
            else:
                self._wait_for_room()
                return
        self._is_pumping = False
        self._set_parked(False)

    def _replay(self) -> bool:
        """Return False while the page is being read."""
        pieces = self.feeder.next_pages(self)
        if pieces is None:
            self._waits_for_page = not self.is_closing and not self.has_ended
            return not self._waits_for_page
        for last, piece in pieces:
            if self.subscriber is None or not self.subscriber.replaying:
                break
            self.outbox += piece
            at_once = self.push()
            if not self.feeder.replayed(self, last) or not at_once:
                break
        self._set_parked(True)
        return True

    def _wait_for_room(self) -> None:
        self._is_blocked = True
        self._pipe.waits_for_room = True
        self.feeder.clock.later(WRITE_SECS, self._give_up, self._progress)

    def _give_up(self, progress: int) -> None:
        if self._is_blocked and self._progress == progress:
            self.abort()

    def _set_parked(self, parked: bool) -> None:
        if self.subscriber is not None and not self.has_ended:
            self.subscriber.parked = parked

    # --- the end -------------------------------------------------------------------------------------

    def close(self, code: int, reason: str) -> None:
        """Close in order: the rest of a frame, the close frame, then wait for the client's."""
        if self.is_closing or self.has_ended:
            return
        self.is_closing = True
        if self.subscriber is not None:
            self.feeder.hub.unsubscribe(self.subscriber)
        self.outbox += close_frame(code, reason)
        if not self._is_blocked and not self.push():
            self._is_pumping = True
            self._wait_for_room()
        self.feeder.clock.later(CLOSE_SECS, self.abort)

    def abort(self) -> None:
        """End both directions now."""
        if not self.has_ended:
            self._pipe.break_now()
            self.end()

    def end(self) -> None:
        """End: the client has disconnected, or has not answered in time."""
        if not self.has_ended:
            self.has_ended = True
            self.feeder.gone(self)

"""A replica's end of a stream: its outbox, and the pump that owns the writing side while the flush leaves it alone."""

from __future__ import annotations

from typing import Protocol

from openguild_proto.fanout.hub import Hub, Subscriber, SubscriberState
from openguild_proto.http.message import OpenStream
from openguild_proto.replica.pages import Pieces
from openguild_proto.ws.frames import close_frame
from tests.simulation.clock import Clock
from tests.simulation.pipes import Pipe

CLOSE_SECS = 5.0  # from the close frame to the client's
WRITE_SECS = 10.0  # without any progress


class Feeder(Protocol):
    """What a socket needs of its process."""

    clock: Clock
    hub: Hub
    send_bytes: int  # at most, in one send

    @property
    def control_failed_at(self) -> float:
        """When the control log could not be read the last time."""

    def take(self, subscriber: Subscriber) -> bytes:
        """What one send takes of the ring."""

    def next_pages(self, socket: StreamSocket) -> Pieces | None:
        """Frames from the log."""

    def replayed(self, socket: StreamSocket, upto: int) -> bool:
        """They were given to the socket."""

    def gone(self, socket: StreamSocket) -> None:
        """The connection has ended."""


class StreamSocket:
    """`stream` and `subscriber` are the replica's, which takes them away at the end; `opened` stays.

    What a send did not take of a frame waits in the outbox.
    """

    def __init__(self, feeder: Feeder, pipe: Pipe, opened: OpenStream) -> None:
        self.opened = opened
        self.stream: OpenStream | None = None
        self.subscriber: Subscriber | None = None
        self.outbox = bytearray()
        self.is_closing = False
        self.has_ended = False
        self.without_right_since: float | None = None  # noted by the check of rights
        self.feeder = feeder
        self._pipe = pipe
        self._is_pumping = False
        self._is_blocked = False
        self._waits_for_page = False
        self._progress = 0  # counts what the pipe took

    # --- writing -------------------------------------------------------------------------------------

    def send(self, data: bytes) -> int:
        """Bytes taken, 0 for none."""
        sent = self._pipe.send(data)
        self._progress += sent
        return sent

    def push(self) -> bool:
        """Send the outbox as far as the pipe takes it; False: bytes are left."""
        while self.outbox:
            sent = self.send(bytes(self.outbox[: self.feeder.send_bytes]))
            if not sent:
                return self.has_ended
            del self.outbox[:sent]
        return True

    def park(self) -> None:
        """The subscriber has something that the flush cannot send: the pump takes over."""
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
        """Until nothing is left: the outbox, pages of the log, then the ring."""
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
        """False: the page is being read."""
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

    # --- ending --------------------------------------------------------------------------------------

    def close(self, code: int, reason: str) -> None:
        """In order: a close frame behind what was begun, then the client's."""
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
        """Both directions end now."""
        if not self.has_ended:
            self._pipe.break_now()
            self.end()

    def end(self) -> None:
        """The client has gone, or is not waited for any more."""
        if not self.has_ended:
            self.has_ended = True
            self.feeder.gone(self)

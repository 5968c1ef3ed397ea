"""One direction of a connection, from a replica to a client: bytes in order, after a delay, within a window."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Protocol, TypeAlias

from openguild_proto.http.message import Headers
from tests.simulation.clock import Clock

WINDOW_BYTES = (6_000, 1 << 20)  # the bytes that a pipe holds before its writer must wait; one of them for each pipe
DELAYS_SECS = (0.0002, 0.001, 0.001, 0.003, 0.03)

Item: TypeAlias = "bytes | Headers | None"
"""Bytes, the head of the answer that opens the stream, or None: the end."""


class Reader(Protocol):
    """The client's end of a pipe."""

    def opened(self, headers: Headers) -> None:
        """The stream was accepted."""

    def arrived(self, data: bytes) -> None:
        """The next bytes have arrived; call `Pipe.took` when they have been read."""

    def ended(self, *, reset: bool) -> None:
        """The stream has ended."""


class Writer(Protocol):
    """The replica's end of a pipe."""

    def has_room(self) -> None:
        """The pipe accepts bytes again."""

    def end(self) -> None:
        """The client has closed its side."""


class Pipe:
    """`send` accepts as many bytes as the window allows."""

    def __init__(self, clock: Clock, rng: Random, reader: Reader) -> None:
        self.writer: Writer | None = None  # the stream's socket, once accepted
        self.waits_for_room = False
        self.is_broken = False
        self._is_closed = False  # by the client
        self._clock = clock
        self._rng = rng
        self._reader = reader
        self._window = rng.choice(WINDOW_BYTES)
        self._held = 0  # bytes sent and not read
        self._last = 0.0
        self._queue: deque[Item] = deque()

    def delay(self) -> float:
        """Return the delay of one direction."""
        return DELAYS_SECS[int(self._rng.random() * len(DELAYS_SECS))]

    def send(self, data: bytes) -> int:
        """Return how many of the bytes it accepted; 0: wait for room, or the pipe is broken."""
        taken = data[: max(0, self._window - self._held)]
        if taken and not self.is_broken:
            self._held += len(taken)
            self._later(taken)
            return len(taken)
        return 0

    def accepted(self, writer: Writer, headers: Headers) -> None:
        """Send the answer to the upgrade, before the frames."""
        self.writer = writer
        self._later(headers)
        if self._is_closed:
            self.close()

    def end(self) -> None:
        self._later(None)

    def took(self, nbytes: int) -> None:
        """Record that the client has read this many bytes."""
        self._held -= nbytes
        if self.waits_for_room and self.writer is not None and not self.is_broken:
            self.waits_for_room = False
            self._clock.later(0.0, self.writer.has_room)

    def close(self) -> None:
        """Close the client's side; the replica learns of it later."""
        self._is_closed = True
        if self.writer is not None:
            self._clock.later(self.delay(), self.writer.end)

    def break_now(self) -> None:
        """Reset the pipe: bytes in flight arrive with the reset, or are lost."""
        if self.is_broken:
            return
        self.is_broken = True
        if self._rng.random() < 0.5:
            self._queue.clear()
        while self._queue:
            self._next()
        self._reader.ended(reset=True)

    def _later(self, item: Item) -> None:
        """Deliver an item later, in the order of the calls."""
        self._last = max(self._last, self._clock.now + self.delay())
        self._queue.append(item)
        self._clock.at(self._last, self._next)

    def _next(self) -> None:
        if not self._queue:  # a reset has overtaken it
            return
        match self._queue.popleft():
            case bytes() as data:
                self._reader.arrived(data)
            case tuple() as headers:
                self._reader.opened(headers)
            case None:
                self._reader.ended(reset=False)

"""A client's end of a stream: decodes messages, as fast as the client reads."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from openguild_proto.http.message import EPOCH_HEADER, Headers, Response
from openguild_proto.ws.frames import FIN_CLOSE, FIN_PONG, FIN_TEXT
from tests.simulation.clock import Clock

if TYPE_CHECKING:
    from tests.simulation.pipes import Pipe
    from tests.simulation.sockets import StreamSocket

SLOW_SHARE = 0.3  # share of messages after which a slow reader pauses
SLOW_SECS = 4.0


class Connection:
    """`take(payload)` gets each message. `end`: the response or close code that ended it, or None after a reset."""

    def __init__(self, clock: Clock, rng: Random, take: Callable[[bytes], None], *, slow: bool) -> None:
        self.pipe: Pipe
        self.epoch: int | None = None
        self.is_open = False
        self.has_ended = False
        self.refusal: Response | None = None
        self.code: int | None = None
        self.reason = ""
        self.opened_now: Callable[[], None] = lambda: None
        self._clock = clock
        self._rng = rng
        self._take = take
        self.is_slow = slow
        self._is_pausing = False
        self._buffer = bytearray()
        self._untaken = 0  # bytes in the pipe for a reader that has paused
        self._reset: bool | None = None  # how the pipe ended after the buffered bytes; None while it is open
        self._resume: Callable[[None], None] | None = None

    @property
    def socket(self) -> StreamSocket | None:
        """The replica's end."""
        return self.pipe.writer  # type: ignore[return-value]  # a pipe knows it as its writer

    def wait(self, resume: Callable[[None], None]) -> None:
        """Wait for the end; for an activity to yield."""
        if self.has_ended:
            self._clock.later(0.0, resume, None)
        else:
            self._resume = resume

    def close(self) -> None:
        """Close the connection from this side."""
        if not self.has_ended:
            self.pipe.close()
            self._end()

    # --- the pipe's reader ---------------------------------------------------------------------------

    def refused(self, response: Response | None) -> None:
        """Handle an answer in place of the stream; None: the connection broke."""
        self.refusal = response
        self._end()

    def opened(self, headers: Headers) -> None:
        if self.has_ended:
            return
        self.is_open = True
        self.epoch = next((int(value) for name, value in headers if name == EPOCH_HEADER), None)
        self.opened_now()

    def arrived(self, data: bytes) -> None:
        if self.has_ended:
            return
        self._buffer += data
        if self._is_pausing:
            self._untaken += len(data)
        else:
            self.pipe.took(len(data))
            self._read()

    def ended(self, *, reset: bool) -> None:
        self._reset = reset
        if not self._is_pausing:
            self._end()

    # --- reading -------------------------------------------------------------------------------------

    def _read(self) -> None:
        buffer = self._buffer
        while len(buffer) >= 2 and not self.has_ended:
            size, start = buffer[1], 2
            if size == 126:
                size, start = (struct.unpack_from("!H", buffer, 2)[0], 4) if len(buffer) >= 4 else (1 << 20, 4)
            elif size == 127:
                size, start = (struct.unpack_from("!Q", buffer, 2)[0], 10) if len(buffer) >= 10 else (1 << 20, 10)
            if len(buffer) < start + size:
                break
            kind, payload = buffer[0], bytes(buffer[start : start + size])
            del buffer[: start + size]
            self._message(kind, payload)
            if self.is_slow and self._rng.random() < SLOW_SHARE:
                self._is_pausing = True
                self._clock.later(SLOW_SECS * self._rng.random(), self._go_on)
                break

    def _go_on(self) -> None:
        self._is_pausing = False
        if not self.has_ended:
            self.pipe.took(self._untaken)
            self._untaken = 0
            self._read()
            if self._reset is not None and not self._is_pausing:
                self._end()

    def _message(self, kind: int, payload: bytes) -> None:
        if kind == FIN_TEXT:
            self._take(payload)
        elif kind == FIN_CLOSE:
            self.code, self.reason = int.from_bytes(payload[:2], "big"), payload[2:].decode()
            self.pipe.close()
            self._end()
        elif kind != FIN_PONG:
            raise ValueError(f"a frame that begins with {kind:#x}")

    def _end(self) -> None:
        if self.has_ended:
            return
        self.has_ended = True
        self.is_open = False
        if self._resume is not None:
            self._clock.later(0.0, self._resume, None)

"""Messages to one socket other than the events of its logs: answers, control and hints. They are sent before events."""

from __future__ import annotations

from collections import deque

from openguild_proto.errors import LocalProtocolError
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import ServerFrame, SubbedLog, SubOk
from openguild_proto.limits import MAX_EPHEMERAL_BYTES, MAX_UNSENT_ANSWER_BYTES
from openguild_proto.ws.frames import message_end

MAX_LINES = 200  # in one `sub_ok`
LINE_BYTES = 160  # approximate size of a line


class Outgoing:
    """Whole WebSocket messages in order. Lines that answer one `sub` are collected until another message is added or written."""

    __slots__ = ("_encoding", "_ephemeral_bytes", "_lines", "_messages", "_nbytes", "_ref", "_writing")

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._messages: deque[bytes] | None = None  # None while empty
        self._nbytes = 0
        self._ephemeral_bytes = 0  # bytes of hints queued since the queue was last empty
        self._lines: list[SubbedLog] | None = None
        self._ref = 0  # of the `sub` that `_lines` answers
        self._writing: bytes | None = None  # returned by `next_write`

    @property
    def is_empty(self) -> bool:
        """Whether nothing is queued."""
        return self._messages is None and self._lines is None

    @property
    def is_full(self) -> bool:
        """Whether so much is queued that no more requests should be read."""
        return self._nbytes + len(self._lines or ()) * LINE_BYTES >= MAX_UNSENT_ANSWER_BYTES

    @property
    def is_writing(self) -> bool:
        """Whether `sent` must still be called for the result of `next_write`."""
        return self._writing is not None

    def add(self, frame: ServerFrame) -> None:
        """Queue a frame."""
        self._end_lines()
        self._append(self._encoding.message(frame))

    def add_line(self, ref: int, line: SubbedLog) -> None:
        """Queue the answer to one log of the `sub` with this ref."""
        if self._lines is not None and (ref != self._ref or len(self._lines) >= MAX_LINES):
            self._end_lines()
        if self._lines is None:
            self._lines = []
        self._ref = ref
        self._lines.append(line)

    def offer(self, messages: bytes) -> bool:
        """Queue hints unless too many bytes of hints are queued. Return whether they were queued."""
        if self._ephemeral_bytes + len(messages) > MAX_EPHEMERAL_BYTES:
            return False
        self._ephemeral_bytes += len(messages)
        self._append(messages)
        return True

    def _append(self, message: bytes) -> None:
        if self._messages is None:
            self._messages = deque()
        self._messages.append(message)
        self._nbytes += len(message)

    def _end_lines(self) -> None:
        lines, self._lines = self._lines, None
        if lines:
            self._append(self._encoding.message(SubOk(self._ref, lines)))

    def next_write(self, max_bytes: int) -> bytes:
        """Return at least one whole message, more within `max_bytes`, b"" if none. Repeats them until `sent` is called."""
        if self._writing is not None:
            return self._writing
        self._end_lines()
        messages = self._messages
        if not messages:
            self._messages = None
            self._ephemeral_bytes = 0
            return b""
        taken = [messages.popleft()]
        size = len(taken[0])
        while messages and size + len(messages[0]) <= max_bytes:
            size += len(messages[0])
            taken.append(messages.popleft())
        self._writing = b"".join(taken)
        return self._writing

    def sent(self, nbytes: int) -> bytes:
        """Record what the socket accepted of that. Return the rest of a partly sent message; unsent ones are returned again.

        Raises LocalProtocolError unless 0 <= `nbytes` <= the number of bytes that `next_write` returned.
        """
        data = self._writing or b""
        if not 0 <= nbytes <= len(data):
            raise LocalProtocolError(f"{nbytes} bytes cannot be taken of {len(data)} that are being written")
        self._writing = None
        end = 0
        while end < nbytes:
            end = message_end(data, end)
        self._nbytes -= end
        if end < len(data) and self._messages is not None:
            self._messages.appendleft(data[end:])
        return data[nbytes:end]

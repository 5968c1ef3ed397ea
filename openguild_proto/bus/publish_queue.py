"""The queue of messages to publish, bounded in messages and in bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from openguild_proto.limits import MAX_PUBLISH_BYTES, MAX_PUBLISH_MESSAGES

HEADER_LINE_BYTES = 14  # "NATS/1.0", its line ends and the empty line


class Message(NamedTuple):
    """A message to publish. `headers`: request id and trace context."""

    subject: str
    payload: bytes
    headers: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """Size of the payload and the header lines."""
        return len(self.payload) + sum(len(name) + len(value) + 4 for name, value in self.headers.items())

    def fits(self, max_payload: int) -> bool:
        """Return whether a server with this limit accepts it. It counts headers, and ends the connection for a larger one."""
        return self.nbytes + HEADER_LINE_BYTES <= max_payload


class PublishQueue:
    """A FIFO queue. Its bound in bytes counts payloads and headers."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._bytes = 0

    def put(self, message: Message) -> bool:
        """Append the message; return False if the queue is full."""
        size = message.nbytes
        if len(self._messages) >= MAX_PUBLISH_MESSAGES or self._bytes + size > MAX_PUBLISH_BYTES:
            return False
        self._messages.append(message)
        self._bytes += size
        return True

    def take(self) -> Message | None:
        """Remove and return the oldest message, or None."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._bytes -= message.nbytes
        return message

    def clear(self) -> int:
        """Drop all messages and return their number."""
        dropped = len(self._messages)
        self._messages.clear()
        self._bytes = 0
        return dropped

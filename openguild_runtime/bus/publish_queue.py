"""The queue of messages to publish, bounded in messages and in bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import anyio

MAX_MESSAGES = 8_192
MAX_BYTES = 8 * 1024 * 1024


class Message(NamedTuple):
    subject: str
    payload: bytes
    headers: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """Size of the payload and the header lines."""
        return len(self.payload) + sum(len(name) + len(value) + 4 for name, value in self.headers.items())


class PublishQueue:
    """A FIFO queue with many producers and one consumer."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._filled = anyio.Event()

    def put(self, message: Message) -> bool:
        """Append the message; return False if the queue is full."""
        size = len(message.payload)
        if len(self._messages) >= MAX_MESSAGES or self._bytes + size > MAX_BYTES:
            return False
        self._messages.append(message)
        self._bytes += size
        self._filled.set()
        return True

    def take(self) -> Message | None:
        """Remove and return the oldest message, or None."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._bytes -= len(message.payload)
        return message

    async def wait(self) -> None:
        """Wait until a message has been put since the last wait."""
        await self._filled.wait()
        self._filled = anyio.Event()

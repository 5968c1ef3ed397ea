"""A raw TCP client: sends any bytes, and reads until the server answers or closes."""

from __future__ import annotations

import json
import socket
from typing import Any, NamedTuple

from tests.support.waiting import PATIENCE_SECS

HOST = b"Host: localhost\r\n"
UPGRADE = HOST + (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class RawAnswer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    def __init__(self, port: int, timeout_secs: float = PATIENCE_SECS, receive_bytes: int | None = None) -> None:
        self.sock = socket.socket()
        if receive_bytes is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.settimeout(timeout_secs)
        self.sock.connect(("127.0.0.1", port))
        self._buffer = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self) -> RawAnswer:
        """Return the next complete response. Raises ConnectionError if the server closes before it."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return RawAnswer(int(first.split(" ")[1]), headers, body)

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes after the last answer."""
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def read_to_end(self) -> bytes:
        """Return all bytes until the server closes."""
        while True:
            try:
                self._more()
            except ConnectionError:
                return self._buffer

    def _more(self) -> None:
        data = self.sock.recv(65_536)
        if not data:
            raise ConnectionError(f"closed after {self._buffer[:200]!r}")
        self._buffer += data


def ask(port: int, data: bytes) -> RawAnswer:
    """Send one request on a new connection."""
    with RawClient(port) as client:
        client.send(data)
        return client.answer()

"""A minimal HTTP client: requests as bytes, and a keep-alive connection that reads answers by Content-Length."""

from __future__ import annotations

import json
import socket
import time
from types import TracebackType
from typing import Any


def request(method: str, target: str, token: str = "", body: Any = None) -> bytes:
    """Return the bytes of a request, with `body` encoded as JSON."""
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n"
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    if body is None:
        return (head + "\r\n").encode()
    data = json.dumps(body).encode()
    return (head + f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n").encode() + data


class Connection:
    """A keep-alive connection."""

    __slots__ = ("buffer", "sent_at", "sock")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.sent_at = 0.0

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def take(self) -> bytes | None:
        """Read once, and return the body of a complete answer, else None. Raises RuntimeError for a non-2xx status."""
        data = self.sock.recv(1 << 18)
        if not data:
            raise ConnectionError("the server has closed the connection")
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return None
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(self.buffer.decode())
        if len(body) < int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            return None
        self.buffer = b""
        return body

    def send(self, data: bytes) -> None:
        """Send a request, and record the time."""
        self.sent_at = time.monotonic()
        self.sock.sendall(data)

    def ask(self, data: bytes) -> bytes:
        """Send a request, wait for its answer and return the body."""
        self.send(data)
        while (body := self.take()) is None:
            pass
        return body

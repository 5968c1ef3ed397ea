"""Attacks, in a separate process: `python attackers.py PORT TOKEN CHANNEL KIND COUNT SECS`.

Prints one JSON line: how many connections the server closed, after how many seconds, and how.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
import time
from collections import Counter

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
MASK = b"\x01\x02\x03\x04"


def frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0xFE]) + struct.pack(">H", size)
    return bytes([first]) + length + MASK + bytes(byte ^ MASK[place % 4] for place, byte in enumerate(payload))


class Attacker:
    def __init__(self, port: int, token: str, channel: str, kind: str) -> None:
        self.port, self.kind = port, kind
        self.upgrade = (
            f"GET /channels/{channel}/ws?since=0 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode()
        self.last = b""

    async def run(self) -> float | None:
        """Return the seconds until the server closed; None if it did not."""
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        if self.kind == "slow reader":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", self.port))
        started = time.monotonic()
        try:
            await getattr(self, self.kind.replace(" ", "_"))(loop, sock)
        except (ConnectionError, BrokenPipeError):
            return time.monotonic() - started
        finally:
            sock.close()
        return time.monotonic() - started

    async def slow_header(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        """Send one byte of an endless head each second."""
        await loop.sock_sendall(sock, HEAD)
        while True:
            await loop.sock_sendall(sock, b"a")
            try:
                async with asyncio.timeout(1.0):
                    self.last = await loop.sock_recv(sock, 4_096) or self.last
                    if self.last:
                        return
            except TimeoutError:
                continue

    async def slow_body(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        await loop.sock_sendall(
            sock, b"POST /sessions/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
        )
        await self.slow_header(loop, sock)

    async def silent(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        """Connect and send nothing."""
        await loop.sock_recv(sock, 1)

    async def slow_reader(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        """Open a stream and never read it. Its end shows only in the server's metric."""
        await loop.sock_sendall(sock, self.upgrade)
        await asyncio.sleep(3_600)

    async def _open(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        await loop.sock_sendall(sock, self.upgrade)
        await loop.sock_recv(sock, 65_536)

    async def _flood(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, data: bytes) -> None:
        while True:
            async with asyncio.timeout(30):
                await loop.sock_sendall(sock, data)

    async def ping_flood(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        await self._open(loop, sock)
        await self._flood(loop, sock, frame(0x89, b"x" * 125) * 500)

    async def fragments(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        """Send 100,000 fragments."""
        await self._open(loop, sock)
        await loop.sock_sendall(sock, frame(0x01, b"a"))
        for _ in range(100):
            await loop.sock_sendall(sock, frame(0x00, b"a") * 1_000)
        self.last = await loop.sock_recv(sock, 4_096)

    async def huge_frame(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        """Send the header of a frame of a gigabyte, and nothing else."""
        await self._open(loop, sock)
        await loop.sock_sendall(sock, b"\x82\xff" + struct.pack(">Q", 1 << 30) + MASK)
        while data := await loop.sock_recv(sock, 65_536):
            self.last = data


async def main() -> None:
    port, token, channel, kind, count, secs = sys.argv[1:]
    attackers = [Attacker(int(port), token, channel, kind) for _ in range(int(count))]
    tasks = [asyncio.ensure_future(attacker.run()) for attacker in attackers]
    done, pending = await asyncio.wait(tasks, timeout=float(secs))
    for task in pending:
        task.cancel()
    times = sorted(found for task in done if (found := task.result()) is not None)
    answers = Counter(
        attacker.last[:12].decode("latin-1") for attacker in attackers if attacker.last.startswith(b"HTTP")
    )
    print(
        json.dumps(
            {
                "kind": kind, "count": len(attackers), "closed": len(times), "first_secs": times[0] if times else None,
                "last_secs": times[-1] if times else None, "answers": dict(answers),
            }
        ),
        flush=True,
    )  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main())

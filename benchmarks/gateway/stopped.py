"""A gateway reader that stops for a minute: `python -m benchmarks.gateway.stopped --secs 60 --rate 333`.

On a real server, ten other readers continue. Windows with and without a stopped reader alternate; the stopped one resumes at the
end of its window and must get everything, in order and once. Reports the others' time from post to delivery, and the server's
memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec

from benchmarks.load.actors import prepared, resident_bytes
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import Ev
from tests.support.server import ServerProcess

MANY = 1_000_000
READERS = 10


class Reader(asyncio.Protocol):
    """One socket that follows a channel from now on. While `stopped` it reads nothing."""

    def __init__(self, token: str, channel: str) -> None:
        self.sequences: list[int] = []
        self.waits: list[float] = []
        self.kinds: list[str] = []
        self.is_up = asyncio.get_running_loop().create_future()
        self._buffer = bytearray()
        self._first = [
            json.dumps({"type": "auth", "token": token}),
            json.dumps({"type": "sub", "ref": 1, "logs": [{"log": f"channel:{channel}"}]}),
        ]
        self._has_head = False
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(
            b"GET /gateway HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: openguild.v2\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._has_head:
            head, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not end:
                return
            assert head.startswith(b"HTTP/1.1 101"), head
            self._has_head, self._buffer = True, bytearray(rest)
            for message in self._first:
                text = message.encode()
                size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
                self.transport.write(b"\x81" + size + bytes(4) + text)
        self._read()

    def _read(self) -> None:
        buffer = self._buffer
        while len(buffer) >= 2:
            size, start = buffer[1] & 0x7F, 2
            if size == 126:
                size, start = int.from_bytes(buffer[2:4], "big"), 4
            elif size == 127:
                size, start = int.from_bytes(buffer[2:10], "big"), 10
            if len(buffer) < start + size:
                return
            payload = bytes(buffer[start : start + size])
            del buffer[: start + size]
            frame = Encoding.JSON.decode_server(payload.decode())
            if isinstance(frame, Ev):
                self.sequences.append(frame.seq)
                posted = msgspec.json.decode(frame.event)["content"]["content"]
                self.waits.append(time.time() - float(posted.partition(" ")[0]))
            else:
                self.kinds.append(type(frame).__name__)
                if self.kinds[-1] == "SubOk" and not self.is_up.done():
                    self.is_up.set_result(None)


async def _open(port: int, token: str, channel: str, *, narrow: bool = False) -> Reader:
    sock = socket.socket()
    if narrow:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    reader = Reader(token, channel)
    await loop.create_connection(lambda: reader, sock=sock)
    await reader.is_up
    return reader


async def _window(
    server: ServerProcess, token: str, channel: str, secs: float, rate: float, *, stop: bool
) -> dict[str, Any]:
    assert server.process is not None
    pid = server.process.pid
    others = [await _open(server.port, token, channel) for _ in range(READERS)]
    stopped = await _open(server.port, token, channel, narrow=True) if stop else None
    before = most = resident_bytes(pid)
    if stopped is not None:
        stopped.transport.pause_reading()
    count = 0
    async with httpx.AsyncClient(base_url=server.base_url, trust_env=False, timeout=60) as http:

        async def post() -> None:
            body = {"content": f"{time.time()} {'x' * 300}"}
            answer = await http.post(
                f"/channels/{channel}/messages", json=body, headers={"authorization": f"Bearer {token}"}
            )
            answer.raise_for_status()

        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as tasks:
            while loop.time() - began < secs:
                tasks.create_task(post())
                count += 1
                if count % 50 == 0:
                    most = max(most, resident_bytes(pid))
                await asyncio.sleep(max(0.0, began + count / rate - loop.time()))
    took = 0.0
    if stopped is not None:
        began = loop.time()
        stopped.transport.resume_reading()
        async with asyncio.timeout(120):
            while len(stopped.sequences) < count:
                await asyncio.sleep(0.05)
        took = loop.time() - began
        first = stopped.sequences[0]
        assert stopped.sequences == list(range(first, first + count)), "not in order, or not once"
    async with asyncio.timeout(60):
        while any(len(other.sequences) < count for other in others):
            await asyncio.sleep(0.05)
    waits = sorted(wait for other in others for wait in other.waits)
    for reader in (*others, *((stopped,) if stopped else ())):
        reader.transport.abort()
    return {
        "events": count,
        "p50, ms": round(waits[len(waits) // 2] * 1e3, 2),
        "p99, ms": round(waits[int(len(waits) * 0.99)] * 1e3, 2),
        "memory more, MiB": round((most - before) / 2**20, 2),
        "level after, s": round(took, 2),
        "told": [kind for kind in stopped.kinds if kind in {"Lagging", "Live"}][:4] if stopped else [],
    }


async def measure(server: ServerProcess, secs: float, rate: float, rounds: int) -> list[dict[str, Any]]:
    user, channel = await asyncio.to_thread(prepared, server.base_url)
    await _window(server, user.token, channel, 5, rate, stop=False)
    return [
        {"stopped reader": stop} | await _window(server, user.token, channel, secs, rate, stop=stop)
        for _ in range(rounds)
        for stop in (False, True)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--secs", type=float, default=60)
    parser.add_argument("--rate", type=float, default=333)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="og-stopped-") as directory:
        server = ServerProcess(
            Path(directory), "--embedded", "--data-dir", f"{directory}/d", WEBSOCKET__MAX_CONNECTIONS_PER_USER=MANY
        )
        with server.start():
            for line in asyncio.run(measure(server, given.secs, given.rate, given.rounds)):
                sys.stdout.write(f"{line}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

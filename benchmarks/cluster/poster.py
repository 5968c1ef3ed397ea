"""Posters over keep-alive HTTP, in a separate process: `python poster.py PORT POSTERS SECS TOKEN CHANNEL...`.

Each connection posts again as soon as it has its answer. Prints one JSON line: posts, seconds, latency quantiles, and the CPU
time of the posters themselves.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time


class Poster:
    __slots__ = ("buffer", "request", "sent_at", "sock")

    def __init__(self, port: int, request: bytes) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = request
        self.buffer = b""
        self.sent_at = 0.0

    def post(self) -> None:
        self.sent_at = time.monotonic()
        self.sock.sendall(self.request)

    def take(self) -> bool:
        """Read data; return True if the answer is complete."""
        self.buffer += self.sock.recv(65_536)
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(self.buffer.decode())
        size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < size:
            return False
        self.buffer = b""
        return True


def main() -> None:
    port, count, secs, token, *channels = sys.argv[1:]
    body = json.dumps({"content": "x" * 100}).encode()
    posters = []
    for number in range(int(count)):
        head = (
            f"POST /channels/{channels[number % len(channels)]}/messages HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        posters.append(Poster(int(port), head.encode() + body))
    poller = select.epoll()
    by_descriptor = {poster.sock.fileno(): poster for poster in posters}
    for descriptor, poster in by_descriptor.items():
        poller.register(descriptor, select.EPOLLIN)
        poster.post()
    started, cpu = time.monotonic(), time.process_time()
    latencies = []
    while (now := time.monotonic()) < started + float(secs):
        for descriptor, _ in poller.poll(1):
            poster = by_descriptor[descriptor]
            if poster.take():
                latencies.append(time.monotonic() - poster.sent_at)
                poster.post()
    latencies.sort()
    spent = now - started
    print(
        json.dumps(
            {
                "posts": len(latencies), "per_sec": len(latencies) / spent, "own_cpu_share": (time.process_time() - cpu) / spent,
                "p50": latencies[len(latencies) // 2], "p99": latencies[int(len(latencies) * 0.99)],
            }
        ),
        flush=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()

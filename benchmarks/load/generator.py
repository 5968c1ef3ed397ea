"""The subscribers: many sockets in one process, read in large pieces, counted in bytes.

`python generator.py PORT CONNECTIONS OVER_SECS TARGET [TOKEN]` connects, prints one JSON line with the time it took, and then
performs commands on stdin: `read SECS [COUNT]` reads until nothing arrives for SECS, but waits longer for COUNT messages, and
prints a report; `stop FRACTION` stops reading from a part of the sockets. TARGET may be `@FILE` with a target on each line, used
in turn. Every hundredth socket is parsed frame by frame, for the count of messages, their order (`in_order`: each is newer than
the one before), and the latencies.

CROWD_OPENING, a JSON object in the environment, is for other protocols on a WebSocket: `headers` of the handshake, `hello` to
send after it, `ready`, the bytes that confirm the subscription (both in hexadecimal), and `in_flight`, the maximum of concurrent
handshakes.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

READ_BYTES = 1 << 20
IN_FLIGHT = 200  # concurrent handshakes
FIRST_SECS = 60.0  # for the first message
PATIENCE_SECS = 20.0  # for late messages
SAMPLED = 100  # one socket in so many is parsed
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
MADE_AT = re.compile(rb'"t\W*:(\d{20})')


class Subscriber:
    __slots__ = (
        "buffer", "bytes", "frames", "greeted", "in_order", "latencies", "made_at", "sampled", "sock", "upgraded",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, *, sampled: bool) -> None:
        self.sock = sock
        self.sampled = sampled
        self.upgraded = False
        self.greeted = False
        self.buffer = bytearray()
        self.bytes = 0
        self.frames = 0
        self.made_at = -1  # of the newest message
        self.in_order = True
        self.latencies: list[float] = []

    def parse(self, data: memoryview, now_ns: int) -> None:
        buffer = self.buffer
        buffer += data
        while len(buffer) >= 2:
            size, head = buffer[1] & 127, 2
            if size >= 126:
                head += 2 if size == 126 else 8
                if len(buffer) < head:
                    return
                size = int.from_bytes(buffer[2:head], "big")
            if len(buffer) < head + size:
                return
            if buffer[0] & 15 in {0, 1, 2}:
                made = [int(each) for each in MADE_AT.findall(bytes(buffer[head : head + size]))]
                self.frames += len(made)
                self.latencies += [(now_ns - each) / 1e9 for each in made]
                for each in made:
                    self.in_order &= each > self.made_at
                    self.made_at = each
            del buffer[: head + size]


class Crowd:
    def __init__(self, port: int, count: int, target: str, token: str | None) -> None:
        self.poller = select.epoll()
        self.subscribers: dict[int, Subscriber] = {}
        self.scratch = bytearray(READ_BYTES)
        self.view = memoryview(self.scratch)
        opening = json.loads(os.environ.get("CROWD_OPENING", "{}"))
        self.in_flight: int = opening.get("in_flight", IN_FLIGHT)
        self.hello, self.ready = bytes.fromhex(opening.get("hello", "")), bytes.fromhex(opening.get("ready", ""))
        authorization = opening.get("headers", "") + (f"Authorization: Bearer {token}\r\n" if token else "")
        targets = Path(target[1:]).read_text().split() if target.startswith("@") else [target]
        self.requests = [
            (
                f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{authorization}\r\n"
            ).encode()
            for path in targets
        ]
        self.port = port
        self.count = count
        # an address for each crowd, because crowds leave many ports in TIME_WAIT
        self.source = f"127.{1 + os.getpid() // 250 % 250}.{os.getpid() % 250}.2"

    def connect(self, over_secs: float) -> float:
        """Connect all, at most `in_flight` at a time, spread over `over_secs`. Return the seconds it took."""
        started = time.monotonic()
        opened = upgraded = 0
        while upgraded < self.count:
            while (
                opened < self.count
                and opened - upgraded < self.in_flight
                and time.monotonic() - started >= over_secs * opened / self.count
            ):
                self._open(sampled=opened % SAMPLED == 0)
                opened += 1
            for fd, _ in self.poller.poll(0.01 if over_secs else 10):
                subscriber = self.subscribers[fd]
                data = subscriber.sock.recv(65_536)
                if not data:
                    raise ConnectionError(f"refused: {bytes(subscriber.buffer)[:300]!r}")
                if subscriber.upgraded:
                    subscriber.bytes += len(data)
                    if subscriber.sampled:
                        subscriber.parse(memoryview(data), time.monotonic_ns())
                    continue
                subscriber.buffer += data
                head, end, rest = bytes(subscriber.buffer).partition(b"\r\n\r\n")
                if end and self.hello and not subscriber.greeted:
                    subscriber.greeted = True
                    subscriber.sock.sendall(self.hello)
                if end and (not self.ready or self.ready in rest):
                    if b" 101 " not in head[:16]:
                        raise ConnectionError(f"refused: {bytes(subscriber.buffer)[:300]!r}")
                    subscriber.upgraded = True
                    subscriber.buffer.clear()
                    if not self.ready:
                        subscriber.bytes += len(rest)
                        if subscriber.sampled:
                            subscriber.parse(memoryview(rest), time.monotonic_ns())
                    upgraded += 1
        return time.monotonic() - started

    def _open(self, *, sampled: bool) -> None:
        sock = socket.socket()
        sock.bind((self.source, 0))
        sock.connect(("127.0.0.1", self.port))
        sock.sendall(self.requests[len(self.subscribers) % len(self.requests)])
        sock.setblocking(False)
        self.subscribers[sock.fileno()] = Subscriber(sock, sampled=sampled)
        self.poller.register(sock, select.EPOLLIN)

    def read_until_quiet(self, quiet_secs: float, count: int) -> None:
        """Read until nothing arrives for `quiet_secs`, or for PATIENCE_SECS while messages of `count` are missing."""
        sampled = [subscriber for subscriber in self.subscribers.values() if subscriber.sampled]
        frames, until = 0, time.monotonic() + FIRST_SECS  # not prolonged by pings, which are not frames
        while (left := until - time.monotonic()) > 0:
            complete = frames > 0 and all(each.frames >= count for each in sampled)
            ready = self.poller.poll(quiet_secs if complete else left, 4_096)
            if not ready:
                return
            for fd, _ in ready:
                subscriber = self.subscribers[fd]
                try:
                    size = subscriber.sock.recv_into(self.scratch)
                except BlockingIOError:
                    continue
                if not size:
                    self.poller.unregister(fd)
                    continue
                subscriber.bytes += size
                if subscriber.sampled:
                    subscriber.parse(self.view[:size], time.monotonic_ns())
            heard = sum(each.frames for each in sampled)
            if heard > frames:
                frames, until = heard, time.monotonic() + PATIENCE_SECS

    def report(self) -> dict[str, object]:
        sampled = [subscriber for subscriber in self.subscribers.values() if subscriber.sampled]
        latencies = sorted(latency for subscriber in sampled for latency in subscriber.latencies)
        answer = {
            "bytes": sum(subscriber.bytes for subscriber in self.subscribers.values()),
            "even": len({subscriber.bytes for subscriber in self.subscribers.values()}) == 1,
            "frames": sorted({subscriber.frames for subscriber in sampled}),
            "in_order": all(subscriber.in_order for subscriber in sampled),
            "latencies": latencies[:: max(1, len(latencies) // 2_000)],
            "p50": quantile(latencies, 0.5),
            "p99": quantile(latencies, 0.99),
            "p999": quantile(latencies, 0.999),
            "max": latencies[-1] if latencies else None,
        }
        for subscriber in self.subscribers.values():
            subscriber.bytes = subscriber.frames = 0
            subscriber.in_order = True
            subscriber.latencies.clear()
        return answer

    def stop(self, fraction: float) -> None:
        """Stop reading from a part of the sockets, except sampled ones, which measure the healthy subscribers."""
        stopped = 0
        for fd, subscriber in self.subscribers.items():
            if not subscriber.sampled and stopped < fraction * len(self.subscribers):
                self.poller.unregister(fd)
                stopped += 1


def quantile(values: list[float], part: float) -> float | None:
    return values[min(len(values) - 1, int(part * len(values)))] if values else None


def commands() -> Iterator[list[str]]:
    while line := sys.stdin.readline():
        yield line.split()


def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port, count, over_secs, target, *token = sys.argv[1:]
    crowd = Crowd(int(port), int(count), target, token[0] if token else None)
    secs = crowd.connect(float(over_secs))
    print(json.dumps({"connected": len(crowd.subscribers), "secs": secs}), flush=True)
    for command, *arguments in commands():
        if command == "read":
            crowd.read_until_quiet(float(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 0)
            print(json.dumps(crowd.report()), flush=True)
        elif command == "stop":
            crowd.stop(float(arguments[0]))
            print("{}", flush=True)


if __name__ == "__main__":
    main()

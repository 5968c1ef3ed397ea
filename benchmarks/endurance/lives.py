"""Short client connections: `python lives.py PORTS TOKEN CHANNEL COUNT WILD SEED SECS RATE`.

PORTS: listening ports, comma-separated, first the server's own, then those of proxies. Opens one connection after another, COUNT
of them or for SECS seconds, at most RATE per second (0: no limit). Nine of ten (`WILD` 0.1) request `/live`, read the answer and
close. The others end at a random moment of a random exchange: by a reset, by a close with unread data, or by a close. Prints one
JSON line with the counts.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
import time
from collections import Counter

TIMEOUT_SECS = 10.0
SOURCES = 200  # source addresses: one has too few ports
LIVE = b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
KEPT = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"
PING = bytes((0x89, 0x80, 1, 2, 3, 4))
CLOSE = bytes((0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8))
RESET = struct.pack("ii", 1, 0)


def steps(rng: random.Random, token: str, channel: str) -> list[bytes | None]:
    """Return the data that a client sends, in pieces; None: it waits for data and does not read it."""
    auth = f"Host: x\r\nAuthorization: Bearer {token}\r\n"
    upgrade = (
        f"GET /channels/{channel}/ws?since=0 HTTP/1.1\r\n{auth}Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()
    body = b'{"content":"hello"}'
    post = f"POST /channels/{channel}/messages HTTP/1.1\r\n{auth}Content-Type: application/json\r\n".encode()
    post += b"Content-Length: %d\r\n\r\n" % len(body)
    page = f"GET /channels/{channel}/events?limit=200 HTTP/1.1\r\n{auth}\r\n".encode()
    lives: list[list[bytes | None]] = [
        [KEPT[:10], KEPT[10:], None, KEPT, None, KEPT[:20]],
        [KEPT * 10, None, KEPT * 10],
        [post, body[:5], body[5:], None, post + body],
        [page * 4, None, page],
        [b"nonsense\r\n\r\n", None],
        [upgrade[:50], upgrade[50:], None, PING, PING[:3], PING[3:], CLOSE, None],
        [upgrade, None, CLOSE],
        [upgrade + PING, CLOSE],
    ]
    return rng.choice(lives)


def live_wildly(rng: random.Random, sock: socket.socket, token: str, channel: str) -> str:
    """End the connection at a random moment; return how."""
    plan = steps(rng, token, channel)
    for piece in plan[: rng.randrange(len(plan) + 1)]:
        if piece is None:
            sock.recv(1, socket.MSG_PEEK)
            if rng.random() < 0.5:
                sock.recv(rng.choice((1, 4_096, 65_536)))
        else:
            sock.sendall(piece)
        if rng.random() < 0.2:
            time.sleep(rng.random() * 0.01)
    end = rng.choice(("reset", "close", "close with the write side shut"))
    if end == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    elif end != "close":
        sock.shutdown(socket.SHUT_WR)
    return end


def main() -> None:
    ports, token, channel, count, wild, seed, secs, rate = sys.argv[1:]
    rng = random.Random(int(seed))
    targets = [int(port) for port in ports.split(",")]
    done: Counter[str] = Counter()
    began = time.monotonic()
    until = began + float(secs)
    for number in range(int(count)):
        if time.monotonic() > until:
            break
        if float(rate) and (early := began + number / float(rate) - time.monotonic()) > 0:
            time.sleep(early)
        sock = socket.socket()
        sock.settimeout(TIMEOUT_SECS)
        try:
            sock.bind((f"127.0.{rng.randrange(1, 5)}.{rng.randrange(1, SOURCES)}", 0))
            sock.connect(("127.0.0.1", rng.choice(targets)))
            if rng.random() < float(wild):
                done[live_wildly(rng, sock, token, channel)] += 1
            else:
                sock.sendall(LIVE)
                while sock.recv(4_096):
                    pass
                done["answered"] += 1
        except OSError as failure:
            done[type(failure).__name__] += 1
        finally:
            sock.close()
    print(json.dumps({"secs": time.monotonic() - began, "ended": done}))


if __name__ == "__main__":
    main()

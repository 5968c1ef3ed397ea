"""One message to the readers of one ring, through the server's flusher: its duration, and how long it blocks the loop.

The readers are slots of the ring on fewer TCP sockets, so that the limit of open files does not bound them. Nothing is read
meanwhile: a message for each slot fits into the sockets' buffers.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from typing import Any

import uvloop

from openguild_proto.fanout.hub import Hub
from openguild_proto.replica.actions import Urgency
from openguild_proto.ws.frames import text_frame
from openguild_runtime.net.flusher import Flusher
from openguild_runtime.net.listener import open_listener
from openguild_runtime.net.ring_flush import StreamRings
from openguild_runtime.observability.metrics import Metrics

RING = "channel"
FRAME = text_frame(b"x" * 300)
SOCKETS = 2_000
MESSAGES = 5


class Held:
    """The longest elapsed time, and the longest processor time, between two turns of the loop while `busy`."""

    def __init__(self, flusher: Flusher) -> None:
        self.wall_secs = self.cpu_secs = 0.0
        self.turns = 0
        self._flusher = flusher
        self._wall, self._cpu = time.monotonic(), time.thread_time()

    def look(self) -> None:
        """Measure; called in each turn of the loop."""
        wall, cpu = time.monotonic(), time.thread_time()
        self.wall_secs, self.cpu_secs = max(self.wall_secs, wall - self._wall), max(self.cpu_secs, cpu - self._cpu)
        self._wall, self._cpu = wall, cpu
        self.turns += 1
        if self._flusher.busy:
            asyncio.get_running_loop().call_soon(self.look)


def measure(subscribers: int) -> dict[str, Any]:
    """Return the medians over `MESSAGES`."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(subscribers))


async def _measure(subscribers: int) -> dict[str, Any]:
    pairs = [_pair() for _ in range(min(subscribers, SOCKETS))]
    hub = Hub()
    hub.open(RING, 0)
    for number in range(subscribers):
        hub.subscribe(RING, 0, handle=pairs[number % len(pairs)][0].fileno())
    flusher = Flusher(Metrics("0", native_ring=True), time.monotonic, lambda: None, None)
    running = asyncio.create_task(flusher.run())
    rings, lines = StreamRings(hub), []
    for sequence in range(1, MESSAGES + 1):
        lines.append(await _message(hub, flusher, rings, sequence))
        for _, theirs in pairs:
            _drain(theirs, len(FRAME) * subscribers // len(pairs))
    running.cancel()
    for pair in pairs:
        for end in pair:
            end.close()
    return {"subscribers": subscribers} | {key: statistics.median(line[key] for line in lines) for key in lines[0]}


async def _message(hub: Hub, flusher: Flusher, rings: StreamRings, sequence: int) -> dict[str, float]:
    await asyncio.sleep(0.05)
    started, cpu = time.monotonic(), time.thread_time()
    held = Held(flusher)
    hub.publish(RING, FRAME, sequence)
    flusher.flush(RING, Urgency.SOON, rings)
    held.look()
    while flusher.busy:
        await asyncio.sleep(0)
    wall, cpu = time.monotonic() - started, time.thread_time() - cpu
    if hub.depth(RING):
        raise RuntimeError("a reader did not get the message")
    return {
        "ms": wall * 1e3, "cpu_ms": cpu * 1e3, "turns": held.turns, "held_ms": held.wall_secs * 1e3,
        "held_cpu_ms": held.cpu_secs * 1e3,
    }  # fmt: skip


def _pair() -> tuple[socket.socket, socket.socket]:
    with open_listener("127.0.0.1", 0) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    return ours, theirs


def _drain(sock: socket.socket, least: int) -> None:
    left = least
    while left > 0:
        left -= len(sock.recv(1 << 20))
    sock.setblocking(False)
    try:
        sock.recv(1 << 20)
    except BlockingIOError:
        return
    finally:
        sock.setblocking(True)

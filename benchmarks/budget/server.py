"""`openguild-server` under callgrind, with a thread that starts and ends counts by commands on stdin.

`begin` starts a count, `end NAME` writes it to a file, `publish COUNT` publishes events to the subscribers of all channels. Each
is answered with one line. Before it serves, it counts the yardstick as `unit`.

From the first `begin` on, the timers of the server are stopped, because their work depends on time, not on requests, and
everything takes long under valgrind.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import anyio

from openguild_runtime.cli.entry_point import main
from openguild_runtime.server import app
from openguild_runtime.server import run as serve_module

UNIT_TURNS = 2_000
EVENT = b'{"t":%020d,"p":"%b"}' % (0, b"x" * 270)  # the crowd counts messages with a time
STILL = 10_000.0
LOOK_SECS = 0.05


class Timers:
    """Replaces `anyio.sleep` with a version that can be slowed down."""

    def __init__(self) -> None:
        self.factor = 1.0
        self._sleep = anyio.sleep
        anyio.sleep = self.sleep

    async def sleep(self, secs: float) -> None:
        """Sleep `factor` times as long."""
        await self._sleep(secs * self.factor)


def unit() -> int:
    """Run a fixed piece of Python similar to a request: the yardstick that cancels out the build of the interpreter."""
    total = 0
    for number in range(UNIT_TURNS):
        name, parts = f"user-{number}", [number, number + 1]
        fields = {"id": number, "name": name, "parts": parts}
        line = b"%d: %b\r\n" % (number, name.encode())
        total += len(line.split(b":")) + len(fields) + sum(_each(parts))
    return total


def _each(parts: list[int]) -> Iterator[int]:
    for part in parts:
        yield part + 1


class Captured(app.Server):
    """The server class, which keeps the running instance and its loop."""

    running: tuple[app.Server, asyncio.AbstractEventLoop]

    async def run(self, *arguments: Any) -> None:
        """Run, and keep the instance and its loop."""
        Captured.running = self, asyncio.get_running_loop()
        await super().run(*arguments)


async def publish(server: app.Server, count: int) -> None:
    """Publish events to all channels with subscribers, and wait after each until the kernel has all bytes."""
    hub = server.replica.replica.hub
    for _ in range(count):
        for stream in list(hub._rings):
            if not stream.startswith("user:"):
                server.replica.replica.release(stream, hub.head(stream) + 1, EVENT)
        server.replica.perform_actions()
        while server.replica.busy:
            await asyncio.sleep(LOOK_SECS)  # a check in each turn of the loop would add to the count


def obey(counter: ctypes.CDLL, timers: Timers) -> None:
    """Perform the commands on stdin until it ends."""
    for line in sys.stdin:
        command, _, name = line.strip().partition(" ")
        match command:
            case "begin":
                timers.factor = STILL
                counter.begin()
            case "end":
                counter.end(name.encode())
            case "publish":
                server, loop = Captured.running
                asyncio.run_coroutine_threadsafe(publish(server, int(name)), loop).result()
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    shared = ctypes.CDLL(os.environ["BUDGET_COUNTER"])
    unit()
    shared.begin()
    unit()
    shared.end(b"unit")
    shared.rest()  # without counting, the start is fast
    serve_module.Server = Captured  # type: ignore[misc]  # replaced to get the instance
    threading.Thread(target=obey, args=(shared, Timers()), daemon=True).start()
    raise SystemExit(main())

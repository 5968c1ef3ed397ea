"""A token ends for requests and for open streams alike, also when the wall clock is set."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
import structlog

from openguild_proto.ws.close_codes import CloseCode
from openguild_runtime.net.transport import watch_deadlines
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from tests.support.line import Line, connected
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio
LIFE_SECS = 1_000  # of the token of `connected`
LOOK_SECS = 0.02  # how late a wall clock that was set is noticed


class Clocks:
    """`passed`: seconds that have gone by beside the real ones; `set_by`: how much the wall clock was set."""

    def __init__(self) -> None:
        self.passed = self.set_by = 0.0
        self.sources = ClocksAndEntropy(
            monotonic=lambda: time.monotonic() + self.passed, wall=lambda: time.time() + self.passed + self.set_by
        )


class Marker:
    """Armed in a wheel of timers for `deadline`: `passed` once all that was due until then has been acted on."""

    def __init__(self, deadline: float) -> None:
        self.timer_tick = -1
        self.passed = False
        self._deadlines = iter((deadline,))

    def next_deadline(self) -> float | None:
        deadline = next(self._deadlines, None)  # asked for when it is armed, and when its turn has come
        self.passed = deadline is None
        return deadline


class Opened:
    """A stream, and requests with the same token, each over a connection that has not idled while clocks were set."""

    def __init__(self, stream: Line, noticed: Callable[[], int]) -> None:
        self.stream = stream
        self.noticed = noticed

    async def status(self) -> str:
        line = self.stream
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        line.server.connection_server.serve(ours, "192.0.2.1")
        with theirs:
            return (await Line(line.server, line.token, line.user, theirs).ask("GET", "/users/me")).split()[1]

    @property
    def is_open(self) -> bool:
        (transport,) = self.stream.server.replica.streams.transports()
        return transport.connection.is_open

    async def timers_turn(self) -> None:
        server = self.stream.server
        marker = Marker(server.sources.monotonic())
        server.timers.arm(marker)
        await eventually(lambda: marker.passed)

    async def close_code(self) -> int:
        """Of the close frame that comes next; pings before it are passed over."""
        while True:
            first, size = await self.stream.read_exactly(2)
            payload = await self.stream.read_exactly(size)
            if first == 0x88:
                return int.from_bytes(payload[:2], "big")


@asynccontextmanager
async def opened(clocks: Clocks) -> AsyncIterator[Opened]:
    with structlog.testing.capture_logs() as records:
        async with connected(sources=clocks.sources) as line, anyio.create_task_group() as tasks:
            server = line.server
            tasks.start_soon(watch_deadlines, server.timers, server.sources.monotonic)
            tasks.start_soon(server.replica.watch_wall_clock, LOOK_SECS)
            assert (await line.upgrade()).startswith("HTTP/1.1 101 ")

            def noticed() -> int:
                return sum("wall clock was moved" in record["event"] for record in records)

            yield Opened(line, noticed)
            server.connection_server.end_all()
            tasks.cancel_scope.cancel()


async def test_a_clock_set_forward_ends_both() -> None:
    clocks = Clocks()
    async with opened(clocks) as both:
        assert (await both.status(), both.is_open) == ("200", True)
        clocks.set_by = LIFE_SECS + 1
        assert await both.status() == "401"
        assert await both.close_code() == CloseCode.TOKEN_ENDED


async def test_a_clock_set_back_lets_both_live_longer() -> None:
    clocks = Clocks()
    async with opened(clocks) as both:
        clocks.set_by = -500
        await eventually(lambda: both.noticed() == 1)
        clocks.passed = LIFE_SECS + 100
        assert await both.status() == "200"
        await both.timers_turn()
        assert both.is_open
        clocks.passed = LIFE_SECS + 501
        assert await both.status() == "401"
        assert await both.close_code() == CloseCode.TOKEN_ENDED


async def test_a_clock_that_is_set_and_set_back_ends_neither() -> None:
    """By less than the token still lives, and there and back again."""
    clocks = Clocks()
    async with opened(clocks) as both:
        for number, by in enumerate((LIFE_SECS - 60.0, -3600.0, 0.0), start=1):
            clocks.set_by = by
            await eventually(lambda number=number: both.noticed() == number)
            assert (await both.status(), both.is_open) == ("200", True)
        clocks.passed = LIFE_SECS + 1
        assert await both.status() == "401"
        assert await both.close_code() == CloseCode.TOKEN_ENDED

"""Sockets are told that they are ready, a share of them in each turn of the loop, and a broken one until it wants nothing more."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import reduce
from operator import or_
from typing import Any

import pytest
import structlog

from openguild_proto.limits import TURN_SECS
from openguild_runtime.net.socket_watch import AT_A_TIME, READ, WRITE, LoopWatch, SocketWatch, make_watch
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as until:
        yield until


class End:
    """One end of a pair, and what it was told."""

    def __init__(self, stack: ExitStack, watch: SocketWatch, turns_of: str = "") -> None:
        self.watch = watch
        self.turns_of = turns_of
        self.sock, self.other = socket.socketpair()
        for end in (self.sock, self.other):
            end.setblocking(False)
            stack.enter_context(end)
        self.told: list[int] = []

    def want(self, events: int) -> None:
        self.watch.want(self.sock.fileno(), self, events)

    def ready(self, events: int) -> None:
        self.told.append(events)

    async def told_of(self, events: int) -> int:
        """All events that it is told of in some turns of the loop while it wants these."""
        self.want(events)
        self.told.clear()
        await turns()
        return reduce(or_, self.told, 0)


async def turns(count: int = 10) -> None:
    """Of the loop, each of which looks for what is ready."""
    for _ in range(count):
        await asyncio.sleep(0)


def watches() -> list[SocketWatch]:
    loop = asyncio.get_running_loop()
    return [make_watch(loop), LoopWatch(loop)]


async def test_a_socket_is_told_of_what_it_wants_and_of_nothing_else(stack: ExitStack) -> None:
    for watch in watches():
        end = End(stack, watch)
        assert await end.told_of(READ) == 0
        end.other.send(b"x")
        assert [await end.told_of(events) for events in (READ, WRITE, READ | WRITE, 0)] == [
            READ,
            WRITE,
            READ | WRITE,
            0,
        ]
        watch.close()


async def test_a_broken_socket_is_reported_until_nothing_is_wanted(stack: ExitStack) -> None:
    end = End(stack, watch := make_watch(asyncio.get_running_loop()))
    end.other.close()
    assert await end.told_of(READ) & READ
    assert len(end.told) > 1
    assert await end.told_of(0) == 0
    watch.close()


async def test_many_that_are_ready_leave_the_loop_to_others_in_between(stack: ExitStack) -> None:
    loop = asyncio.get_running_loop()
    if not hasattr(select, "epoll"):
        pytest.skip("the loop itself decides how many")
    watch = make_watch(loop)
    told: list[str] = []

    class IdempotencyKey(End):
        def ready(self, events: int) -> None:
            self.want(0)
            told.append("socket")
            time.sleep(TURN_SECS / 4)

    for _ in range(40):
        end = IdempotencyKey(stack, watch)
        end.other.send(b"x")
        end.want(READ)

    def other() -> None:
        if told.count("socket") < 40:
            told.append("other")
            loop.call_soon(other)

    other()
    await eventually(lambda: told.count("socket") == 40)
    runs = [len(run) for run in "".join("s" if name == "socket" else " " for name in told).split()]
    assert max(runs) <= 8
    watch.close()


async def test_sockets_of_one_peer_do_not_hold_up_that_of_another(stack: ExitStack) -> None:
    loop = asyncio.get_running_loop()
    if not hasattr(select, "epoll"):
        pytest.skip("the loop itself decides the order")
    watch = make_watch(loop)
    told: list[str] = []

    class Slow(End):
        def ready(self, events: int) -> None:
            self.want(0)
            told.append(self.turns_of)
            time.sleep(TURN_SECS / 4)

    def sends(turns_of: str) -> None:
        end = Slow(stack, watch, turns_of)
        end.other.send(b"x")
        end.want(READ)

    for _ in range(100):
        sends("a")
    await eventually(lambda: len(told) >= 20)
    before = len(told)
    sends("b")
    await eventually(lambda: len(told) == 101)
    assert told.index("b") <= before + 1 + 8, "it is found with the next turn of the loop, and comes second there"
    watch.close()


async def test_one_that_takes_long_leaves_the_loop_to_others(stack: ExitStack) -> None:
    loop = asyncio.get_running_loop()
    if not hasattr(select, "epoll"):
        pytest.skip("the loop itself decides how many")
    watch = make_watch(loop)
    told: list[str] = []

    class Slow(End):
        def ready(self, events: int) -> None:
            self.want(0)
            time.sleep(TURN_SECS)
            told.append(str(self.sock.fileno()))

    ends = [Slow(stack, watch) for _ in range(AT_A_TIME + 8)]
    for end in ends:
        end.other.send(b"x")
        end.want(READ)

    def other() -> None:
        if len(told) - told.count("other") < len(ends):
            told.append("other")
            loop.call_soon(other)

    other()
    await eventually(lambda: len(told) - told.count("other") == len(ends))
    assert [name for name in told if name != "other"] == [str(end.sock.fileno()) for end in ends], "in their order"
    runs = [len(run) for run in "".join(" " if name == "other" else "s" for name in told).split()]
    assert max(runs) <= 2, "one in each turn; uvloop looks twice in some"
    watch.close()


async def test_one_that_ends_another_in_its_turn_is_the_last_that_is_told(stack: ExitStack) -> None:
    watch = make_watch(asyncio.get_running_loop())
    told: list[End] = []

    class Ending(End):
        def ready(self, events: int) -> None:
            told.append(self)
            for end in (first, second):
                end.want(0)

    first, second = Ending(stack, watch), Ending(stack, watch)
    for end in (first, second):
        end.other.send(b"x")
        end.want(READ)
    await turns()
    assert len(told) == 1
    watch.close()


@pytest.mark.parametrize("failing_is_first", [True, False])
async def test_one_that_fails_holds_up_no_other(stack: ExitStack, failing_is_first: bool) -> None:
    class Failing(End):
        def ready(self, events: int) -> None:
            raise RuntimeError("a defect")

    watch = make_watch(asyncio.get_running_loop())
    ends = [Failing(stack, watch), End(stack, watch)]
    well = ends[1]
    for end in ends if failing_is_first else reversed(ends):
        end.other.send(b"x")
        end.want(READ)
    with structlog.testing.capture_logs() as records:
        await turns()
    assert len(well.told) > 1
    assert {record["event"] for record in records} == {"a socket could not be served"}
    watch.close()


async def test_nothing_is_told_after_the_end(stack: ExitStack) -> None:
    watch = make_watch(asyncio.get_running_loop())
    end = End(stack, watch)
    end.want(READ)
    watch.close()
    watch.close()
    end.other.send(b"x")
    await turns()
    end.want(0)
    end.want(READ)
    await turns()
    assert end.told == []

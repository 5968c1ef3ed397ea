"""Work for very many sockets, a few milliseconds of each turn of the loop."""

from __future__ import annotations

import asyncio
from functools import partial

import anyio.lowlevel
import pytest

from openguild_proto.limits import TURN_SECS
from openguild_runtime.system.turns import Pauses, Turn, TurnQueue

pytestmark = pytest.mark.anyio


async def test_everything_is_done_and_others_have_their_turn() -> None:
    now, done, between = [0.0], [], []

    def slow(item: int) -> None:
        done.append(item)
        now[0] += TURN_SECS / 8

    async def other() -> None:
        while len(done) < 100:
            between.append(len(done))
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        await Turn(lambda: now[0]).each(range(100), slow)
    assert done == list(range(100))
    assert len(between) >= 10


async def test_the_time_of_a_turn_is_shared_and_the_next_turn_has_its_own() -> None:
    now = [0.0]
    turn = Turn(lambda: now[0])
    assert turn.left() == TURN_SECS
    now[0] += 2 * TURN_SECS
    assert turn.left() == -TURN_SECS
    await anyio.lowlevel.checkpoint()
    assert turn.left() == TURN_SECS


async def test_callbacks_have_their_turns_in_order_also_behind_one_that_fails() -> None:
    now, done, turns = [0.0], [], []
    queue = TurnQueue(lambda: now[0])
    loop, failures = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))

    def take(item: int) -> None:
        if item == 3:
            queue.call_soon(partial(take, 100))
            raise ValueError
        done.append(item)
        now[0] += TURN_SECS / 8

    for item in range(40):
        queue.call_soon(partial(take, item))
    while len(done) < 40:
        await anyio.lowlevel.checkpoint()
        turns.append(len(done))
    assert done == [0, 1, 2, *range(4, 40), 100]
    assert turns[:3] == [3, 11, 19]
    assert [type(failure) for failure in failures] == [ValueError]
    queue.call_soon(partial(take, 101))
    await anyio.lowlevel.checkpoint()
    assert done[-1] == 101


async def test_a_task_pauses_when_its_time_has_passed_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now, turns, done = [0.0], set(), []
    monkeypatch.setattr(anyio, "current_time", lambda: now[0])

    async def other() -> None:
        while len(done) < 12:
            turns.add(len(done))
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        pauses = Pauses()
        tasks.start_soon(other)
        for number in range(1, 13):
            now[0] = number * TURN_SECS / 4
            await pauses.pause_if_due()
            done.append(number)
    assert turns == {3, 7, 11}  # in the pause at the fourth, the eighth and the twelfth

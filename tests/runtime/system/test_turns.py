"""Work for very many sockets, a few milliseconds of each turn of the loop."""

from __future__ import annotations

import anyio.lowlevel
import pytest

from openguild_proto.limits import TURN_SECS
from openguild_runtime.system.turns import Turn

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

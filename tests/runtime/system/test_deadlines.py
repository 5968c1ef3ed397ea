"""Deadlines: cancelled at the time, never for another reason, and level with anyio's scopes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest

from openguild_runtime.system.deadlines import Deadlines

pytestmark = pytest.mark.anyio


async def test_a_wait_ends_at_its_deadline_and_the_task_goes_on() -> None:
    deadlines = Deadlines()
    with deadlines.after(0.02) as limit:
        await anyio.sleep_forever()
    assert limit.passed
    await anyio.lowlevel.checkpoint()  # nothing of the cancellation is left


async def test_a_wait_that_ends_in_time_is_not_touched() -> None:
    deadlines = Deadlines()
    with deadlines.after(0.5) as limit:
        await anyio.lowlevel.checkpoint()
    with deadlines.after(0.6) as later:  # when this one passes, its time has passed, too
        await anyio.sleep_forever()
    assert later.passed
    assert not limit.passed


async def test_an_earlier_deadline_that_comes_later_is_kept() -> None:
    deadlines, ended = Deadlines(), list[str]()

    async def wait(name: str, secs: float) -> None:
        with deadlines.after(secs):
            await anyio.sleep_forever()
        ended.append(name)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for name, secs in (("last", 0.09), ("first", 0.03), ("second", 0.06)):
                tasks.start_soon(wait, name, secs)
    assert ended == ["first", "second", "last"]


async def test_what_goes_on_waiting_is_cancelled_again() -> None:
    deadlines, tries = Deadlines(), 0
    with anyio.fail_after(5), deadlines.after(0.01):
        while tries < 3:
            with suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()
            tries += 1
    await anyio.lowlevel.checkpoint()
    task = asyncio.current_task()
    assert (tries, task is not None and task.cancelling()) == (3, 0)


async def test_an_outer_deadline_is_not_taken_for_an_inner_one() -> None:
    deadlines, inner_ended = Deadlines(), False
    with deadlines.after(0.01) as outer:
        with deadlines.after(60) as inner:
            await anyio.sleep_forever()
        inner_ended = True
    assert (outer.passed, inner.passed, inner_ended) == (True, False, False)


async def test_cancellation_from_outside_passes_through() -> None:
    deadlines = Deadlines()
    with anyio.move_on_after(0.01) as outside, deadlines.after(60) as limit:
        await anyio.sleep_forever()
    assert (outside.cancelled_caught, limit.passed) == (True, False)


async def test_a_failure_at_the_deadline_is_raised() -> None:
    deadlines = Deadlines()
    with pytest.raises(ValueError, match="late"), deadlines.after(0.01):
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("late")
    await anyio.lowlevel.checkpoint()


async def test_another_task_can_end_a_block() -> None:
    deadlines = Deadlines()
    with anyio.fail_after(5), deadlines.after(60) as limit:
        asyncio.get_running_loop().call_soon(limit.cancel)
        await anyio.sleep_forever()
    assert limit.passed
    limit.cancel()
    await anyio.lowlevel.checkpoint()  # it has ended: nothing happens

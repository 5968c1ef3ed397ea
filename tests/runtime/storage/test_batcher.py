"""Batches: whatever happens to one, each of its callers hears of it, and the next batch is taken."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from openguild_proto.effects import Overloaded, StorageUnavailable
from openguild_proto.effects.channels import FindChannelAccess
from openguild_proto.limits import MAX_QUEUED_ACCESS_CHECKS
from openguild_proto.records import ChannelAccess
from openguild_runtime.storage.postgres.access_batcher import AccessBatcher

pytestmark = pytest.mark.anyio


class CannotBeCopied(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def question(number: int = 0) -> FindChannelAccess:
    return FindChannelAccess(channel_id=f"c{number}", user_id="u")


class Reader:
    """Answers None to everything, unless told to fail or to answer something else."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.failure: BaseException | None = None
        self.surplus = 0
        self.gate: anyio.Event | None = None

    async def read(self, questions: Sequence[FindChannelAccess]) -> Sequence[ChannelAccess | None]:
        self.batches.append(len(questions))
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return [None] * (len(questions) + self.surplus)


async def ask(batcher: AccessBatcher, count: int) -> list[object]:
    """What each of `count` callers, who ask at once, gets."""
    outcomes: list[object] = []

    async def one(number: int) -> None:
        try:
            outcomes.append(await batcher.submit(question(number)))
        except Exception as failure:
            outcomes.append(failure)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(one, number)
    return outcomes


@pytest.mark.parametrize("failure", [CannotBeCopied(1, 2), StorageUnavailable(), ZeroDivisionError("why")])
async def test_every_caller_gets_the_failure_itself_and_the_loop_goes_on(failure: Exception) -> None:
    reader = Reader()
    batcher = AccessBatcher(reader.read)
    reader.failure = failure
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(batcher.run)
        assert await ask(batcher, 3) == [failure] * 3
        reader.failure = None
        assert await ask(batcher, 2) == [None, None]
        batcher.close()
    assert reader.batches == [3, 2]


async def test_a_wrong_number_of_replies_leaves_nobody_waiting() -> None:
    reader = Reader()
    batcher = AccessBatcher(reader.read)
    reader.surplus = -1
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(batcher.run)
        outcomes = await ask(batcher, 3)
        assert [type(outcome) for outcome in outcomes] == [type(None), type(None), ValueError]
        batcher.close()


async def test_cancellation_settles_the_callers() -> None:
    reader = Reader()
    reader.gate = anyio.Event()
    batcher = AccessBatcher(reader.read)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(batcher.run)
        begun = batcher.submit(question())
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert begun.cancelled()


async def test_closing_finishes_the_batch_under_way_and_refuses_what_waits() -> None:
    reader = Reader()
    reader.gate = anyio.Event()
    batcher = AccessBatcher(reader.read)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(batcher.run)
        begun = batcher.submit(question())
        await anyio.wait_all_tasks_blocked()
        waiting = batcher.submit(question())
        batcher.close()
        with pytest.raises(StorageUnavailable):
            await waiting
        with pytest.raises(StorageUnavailable):
            batcher.submit(question())
        reader.gate.set()
        assert await begun is None
    assert (len(batcher), batcher.bytes) == (0, 0)


async def test_what_waits_is_bounded_and_so_is_a_batch() -> None:
    reader = Reader()
    batcher = AccessBatcher(reader.read)
    futures = [batcher.submit(question(number)) for number in range(MAX_QUEUED_ACCESS_CHECKS)]
    with pytest.raises(Overloaded):
        batcher.submit(question())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(batcher.run)
        for future in futures:
            await future
        batcher.close()
    assert max(reader.batches) == 256


async def test_who_gave_up_waiting_is_in_no_batch() -> None:
    """What was not begun is not done: the caller has been told so, and asks again."""
    reader = Reader()
    batcher = AccessBatcher(reader.read)
    left = batcher.submit(question(1))
    left.cancel()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(batcher.run)
        with anyio.fail_after(5):
            await batcher.submit(question(2))
        tasks.cancel_scope.cancel()
    assert reader.batches == [1]


async def test_those_that_wait_can_be_refused_while_a_batch_is_under_way() -> None:
    reader = Reader()
    reader.gate = anyio.Event()
    batcher = AccessBatcher(reader.read)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(batcher.run)
        begun = batcher.submit(question(1))
        await anyio.wait_all_tasks_blocked()
        waits = batcher.submit(question(2))
        batcher.refuse_waiting()
        with pytest.raises(StorageUnavailable):
            await waits
        reader.gate.set()
        with anyio.fail_after(5):
            assert await begun is None
            assert await batcher.submit(question(3)) is None, "and it goes on"
        tasks.cancel_scope.cancel()
    assert len(batcher) == 0

"""Group commit: what waits together commits together, each with its own outcome (turns: tests/proto/log)."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest
from structlog.testing import capture_logs

from openguild_proto.effects import Overloaded, StorageUnavailable
from openguild_proto.effects.channels import Appended, AppendEvent, AppendFailure
from openguild_proto.limits import MAX_QUEUE_EVENTS
from openguild_proto.log.commits import Attempt, Outcome
from openguild_proto.records import StoredEvent
from openguild_runtime.storage.postgres.committer import Committer
from openguild_runtime.storage.postgres.faults import Locked
from tests.support.deeds import append

pytestmark = pytest.mark.anyio


class Log:
    """Commits that wait until they are let through."""

    def __init__(self) -> None:
        self.batches: list[list[AppendEvent]] = []
        self.gate = anyio.Event()
        self.failure: Exception | None = None

    async def store(self, attempt: Attempt) -> Sequence[Outcome]:
        self.batches.append(list(attempt.appends))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return [Appended(StoredEvent(post.channel_id, 1, post.event_id, post.wire, 0)) for post in attempt.appends]


def committer(log: Log) -> Committer:
    return Committer(log.store, lambda events, secs: None)


async def test_what_waits_while_a_batch_commits_goes_together() -> None:
    log = Log()
    queue = committer(log)
    outcomes: list[Appended | AppendFailure] = []

    async def post(effect: AppendEvent) -> None:
        outcomes.append(await queue.submit(effect))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.run)
        tasks.start_soon(post, append("first"))
        await anyio.wait_all_tasks_blocked()
        for number in range(10):
            tasks.start_soon(post, append(f"c{number}"))
        await anyio.wait_all_tasks_blocked()
        assert len(queue) == 10
        log.gate.set()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert [len(batch) for batch in log.batches] == [1, 10]
    assert (len(queue), len(outcomes), queue.bytes) == (0, 11, 0)


async def test_a_failure_reaches_every_caller_of_the_batch_and_no_other() -> None:
    log = Log()
    log.gate.set()
    log.failure = StorageUnavailable()
    queue = committer(log)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.run)
        with pytest.raises(StorageUnavailable):
            await queue.submit(append("c"))
        log.failure = None
        assert isinstance(await queue.submit(append("c")), Appended)
        tasks.cancel_scope.cancel()


async def test_a_defect_reaches_every_caller_and_the_next_batch_is_committed() -> None:
    """A committer that ended would leave its channels, and their callers, waiting for ever."""

    class BrokenLog(Log):
        async def store(self, attempt: Attempt) -> Sequence[Outcome]:
            if not self.batches:
                self.batches.append(list(attempt.appends))
                raise ZeroDivisionError
            return await super().store(attempt)

    log = BrokenLog()
    log.gate.set()
    queue = committer(log)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.run)
        futures = [queue.submit(append(f"c{number}")) for number in range(3)]
        for future in futures:
            with pytest.raises(ZeroDivisionError):
                await future
        assert isinstance(await queue.submit(append("c")), Appended)
        tasks.cancel_scope.cancel()


async def test_a_locked_channel_is_refused_at_once_and_nobody_else_is() -> None:
    log = Log()
    log.failure = Locked()
    queue = committer(log)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.run)
        outcomes = [queue.submit(append("locked"))]
        await anyio.wait_all_tasks_blocked()
        outcomes.append(queue.submit(append("locked")))
        free = queue.submit(append("free"))
        log.gate.set()
        for outcome in outcomes:
            with pytest.raises(Overloaded):
                await outcome
        with pytest.raises(Overloaded):
            queue.submit(append("locked"))
        log.failure = None
        assert isinstance(await free, Appended)
        tasks.cancel_scope.cancel()


async def test_a_locked_table_does_not_fill_the_log() -> None:
    """It locks every channel, and each is tried again every second."""
    log = Log()
    log.failure = Locked()
    log.gate.set()
    queue = committer(log)
    with capture_logs() as records:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(queue.run)
            for number in range(20):
                with pytest.raises(Overloaded):
                    await queue.submit(append(f"c{number}"))
            tasks.cancel_scope.cancel()
    assert [(record["channel_id"], record["suppressed"]) for record in records] == [("c0", 0)]


async def test_what_the_queue_does_not_admit_is_refused() -> None:
    queue = committer(Log())
    for number in range(MAX_QUEUE_EVENTS):
        queue.submit(append(f"c{number % 3}"))
    with pytest.raises(Overloaded):
        queue.submit(append("c"))
    assert len(queue) == MAX_QUEUE_EVENTS


async def test_channels_take_turns() -> None:
    log = Log()
    log.gate.set()
    queue = committer(log)
    busy = [append("busy", text=str(number)) for number in range(1_000)]
    futures = [queue.submit(effect) for effect in busy]
    futures.append(queue.submit(append("quiet")))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.run)
        for future in futures:
            await future
        tasks.cancel_scope.cancel()
    assert [effect.channel_id for effect in log.batches[0]][:3] == ["busy", "quiet", "busy"]
    stored = [effect for batch in log.batches for effect in batch if effect.channel_id == "busy"]
    assert stored == busy, "a channel keeps its order"


async def test_nobody_waits_for_a_queue_that_is_closed() -> None:
    queue = committer(Log())
    waiting = queue.submit(append("c"))
    queue.close()
    with pytest.raises(StorageUnavailable):
        await waiting
    with pytest.raises(StorageUnavailable):
        queue.submit(append("c"))
    assert (len(queue), queue.bytes) == (0, 0)


async def test_a_caller_who_left_does_not_undo_the_append() -> None:
    log = Log()
    queue = committer(log)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.run)
        with anyio.move_on_after(0.01):
            await queue.submit(append("c"))
        log.gate.set()
        assert isinstance(await queue.submit(append("c")), Appended)
        tasks.cancel_scope.cancel()
    assert [len(batch) for batch in log.batches] == [1, 1]

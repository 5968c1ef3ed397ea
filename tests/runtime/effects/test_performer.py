"""One deadline for all effects of a request: what is under way when it passes is given up, and nothing more is begun."""

from __future__ import annotations

from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import pytest

from openguild_proto.effects import Operation, Overloaded, StorageEffect, StorageUnavailable
from openguild_proto.effects.accounts import FindUserByName
from openguild_proto.effects.attempts import CountAttempt
from openguild_proto.effects.process import HashPassword, LetOthersRun
from openguild_proto.policy.lifecycle import Lifecycle
from openguild_runtime.effects.passwords import PasswordHasher
from openguild_runtime.effects.performer import Performer
from openguild_runtime.storage.memory import MemoryStorage

T = TypeVar("T")
pytestmark = pytest.mark.anyio
FIND = FindUserByName(username_key="alice")
COUNT = CountAttempt(keys=(), window_secs=60, now_ms=0)


class Stuck(MemoryStorage):
    """Counts attempts, and never finds anybody."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def perform(self, effect: StorageEffect[T]) -> T:
        self.asked.append(type(effect).__name__)
        if effect is FIND:
            await anyio.sleep_forever()
        return await super().perform(effect)


class Busy(PasswordHasher):
    async def hash(self, password: str) -> str:
        await anyio.sleep_forever()
        return password


class NoServers:
    """No operation here asks another server."""

    async def ask(self, effect: Any) -> Any:
        raise NotImplementedError

    discover = fetch = exchange = ask


def performer(storage: MemoryStorage) -> Performer:
    async def never() -> Any:
        raise NotImplementedError

    lifecycle = Lifecycle()
    lifecycle.started()
    return Performer(
        storage=storage, lifecycle=lifecycle, hasher=Busy(), readiness=never, render_metrics=never,
        committed=lambda event, request_id: None, announce=lambda hint: None,
        presence_of=lambda user_ids, reader_id: {}, servers=NoServers(),
    )  # fmt: skip


def asking(*effects: Any) -> Operation[list[type[Exception] | None]]:
    """Ask for each; how each ended."""
    outcomes: list[type[Exception] | None] = []
    for effect in effects:
        try:
            yield from effect
        except StorageUnavailable as failure:
            outcomes.append(type(failure))
        else:
            outcomes.append(None)
    return outcomes


async def within(secs: float, storage: MemoryStorage, *effects: Any) -> list[type[Exception] | None]:
    with anyio.fail_after(5):
        return await performer(storage).run(asking(*effects), deadline=anyio.current_time() + secs)


async def test_an_effect_is_given_up_at_the_deadline_and_none_is_begun_after_it() -> None:
    storage = Stuck()
    outcomes = await within(0.05, storage, COUNT, FIND, COUNT)
    assert outcomes == [None, StorageUnavailable, StorageUnavailable]
    assert storage.asked == ["CountAttempt", "FindUserByName"]


async def test_who_waits_for_a_place_to_hash_is_told_that_it_is_too_much() -> None:
    assert await within(0.05, MemoryStorage(), HashPassword(password="x")) == [Overloaded]


async def test_work_that_lets_others_run_goes_on_one_at_a_time() -> None:
    order: list[str] = []

    def work(name: str) -> Operation[None]:
        for step in range(3):
            yield from LetOthersRun()
            order.append(f"{name}{step}")

    async def look() -> None:
        for _ in range(20):
            order.append("-")
            await anyio.lowlevel.checkpoint()

    driver = performer(MemoryStorage())
    async with anyio.create_task_group() as tasks:
        for name in ("a", "b"):
            tasks.start_soon(driver.run, work(name))
        tasks.start_soon(look)
    steps = "".join(order).strip("-").split("-")
    assert [step for step in steps if step] == ["a0", "b0", "a1", "b1", "a2", "b2"], "the others run in between"


async def test_cancellation_from_outside_is_not_taken_for_the_deadline() -> None:
    with anyio.move_on_after(0.05) as outside:
        await performer(Stuck()).run(asking(FIND), deadline=anyio.current_time() + 60)
    assert outside.cancelled_caught

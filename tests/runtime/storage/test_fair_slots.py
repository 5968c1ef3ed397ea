"""Places that users share: one at a time for each, also where requests are cancelled or wait for too long."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from openguild_proto.effects import Overloaded
from openguild_runtime.storage.postgres import fair_slots
from openguild_runtime.storage.postgres.fair_slots import FairSlots
from openguild_runtime.system.deadlines import Deadlines

pytestmark = pytest.mark.anyio


class Desk:
    """Some places, and who is at one; a request stays until it is let go."""

    def __init__(self, count: int) -> None:
        self.places, self.deadlines = FairSlots(count), Deadlines()
        self.inside: list[str] = []
        self._exits: dict[str, anyio.Event] = {}

    async def request(self, name: str) -> None:
        """`name`: the user, and a number."""

        async def use() -> None:
            self.inside.append(name)
            self._exits[name] = anyio.Event()
            try:
                await self._exits[name].wait()
            finally:
                self.inside.remove(name)

        await self.places.run(name[0], use, self.deadlines)

    def let_go(self, name: str) -> None:
        self._exits[name].set()


async def test_a_user_waits_behind_their_own_requests_only() -> None:
    desk = Desk(2)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for name in ("a1", "a2", "a3", "b1", "c1"):
                tasks.start_soon(desk.request, name)
            await anyio.wait_all_tasks_blocked()
            assert desk.inside == ["a1", "b1"]
            for leaving, inside in (("b1", ["a1", "c1"]), ("a1", ["c1", "a2"]), ("c1", ["a2"]), ("a2", ["a3"])):
                desk.let_go(leaving)
                await anyio.wait_all_tasks_blocked()
                assert desk.inside == inside
            desk.let_go("a3")


async def test_requests_that_are_cancelled_leave_their_places() -> None:
    """Also one whose turn begins at the moment of its cancellation, and one that is cancelled before a turn could begin."""
    desk = Desk(1)
    with anyio.fail_after(5):
        for order in ("first", "second"):
            first = asyncio.create_task(desk.request("a1"))
            second = asyncio.create_task(desk.request("b1"))
            third = asyncio.create_task(desk.request("c1"))
            await anyio.wait_all_tasks_blocked()
            desk.let_go("a1")
            if order == "second":
                second.cancel()
            await first  # the turn of the second begins here, and its task has not run
            second.cancel()
            await anyio.wait_all_tasks_blocked()
            assert second.cancelled()
            assert desk.inside == ["c1"]
            desk.let_go("c1")
            await third
            assert desk.inside == []


async def test_who_waits_for_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_slots, "SLOT_LIMIT_SECS", 0.01)
    desk = Desk(1)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(desk.request, "a1")
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(Overloaded):
                await desk.request("b1")
            desk.let_go("a1")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(desk.request, "b2")
            await anyio.wait_all_tasks_blocked()
            assert desk.inside == ["b2"]
            desk.let_go("b2")

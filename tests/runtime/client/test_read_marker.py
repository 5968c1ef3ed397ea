"""Read positions of a user who logs out while they wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import anyio
import pytest

from openguild_proto.client import ClientResponse
from openguild_runtime.client import NotFound, OutcomeUnknown, Unauthorized
from openguild_runtime.client.read_marker import ReadMarker

pytestmark = pytest.mark.anyio


async def test_whoever_waits_is_told_that_the_session_has_ended() -> None:
    asked, answer = list[str](), anyio.Event()

    async def send(method: str, path: str, body: object, *, repeatable: bool) -> ClientResponse:
        asked.append(path)
        await answer.wait()
        return ClientResponse(200, (), b"{}")

    marker = ReadMarker(lambda: None, send, anyio.current_time, lambda: 0.0)
    ends = list[int]()

    async def mark(channel_id: str) -> None:
        with pytest.raises(Unauthorized) as end:
            await marker.mark(channel_id, 1, 20.0)
        ends.append(end.value.status)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for channel_id in ("c", "d"):
                tasks.start_soon(mark, channel_id)
            await anyio.wait_all_tasks_blocked()
            marker.forget()
            answer.set()
    assert (len(asked), ends) == (1, [401, 401])


async def test_a_refusal_of_one_channel_is_not_told_of_another() -> None:
    async def send(method: str, path: str, body: object, *, repeatable: bool) -> ClientResponse:
        if "/gone/" in path:
            raise NotFound(404, "not_found", "there is no such channel")
        await anyio.sleep_forever()
        raise AssertionError

    now = [0.0]
    marker = ReadMarker(lambda: None, send, lambda: now[0], lambda: 0.0)
    ends = dict[str, type[Exception]]()

    async def mark(channel_id: str, patience_secs: float) -> None:
        try:
            await marker.mark(channel_id, 1, patience_secs)
        except (NotFound, OutcomeUnknown) as end:
            ends[channel_id] = type(end)
            now[0] += 1  # the pause between two positions is over

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(mark, "gone", 5.0)
            tasks.start_soon(mark, "slow", 1.5)
    assert ends == {"gone": NotFound, "slow": OutcomeUnknown}


def test_many_noted_positions_start_one_task() -> None:
    started = list[Callable[[], Awaitable[None]]]()

    class Open:
        def start(self, work: Callable[[], Awaitable[None]]) -> None:
            started.append(work)

    async def send(method: str, path: str, body: object, *, repeatable: bool) -> ClientResponse:
        raise AssertionError

    marker = ReadMarker(lambda: cast(Any, Open()), send, lambda: 0.0, lambda: 0.0)
    for sequence in range(100):
        marker.note("c", sequence)
    assert started == [marker.send_all]

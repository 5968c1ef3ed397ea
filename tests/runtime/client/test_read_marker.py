"""Read positions of a user who logs out while they wait."""

from __future__ import annotations

import anyio
import pytest

from openguild_proto.client import ClientResponse
from openguild_runtime.client import Unauthorized
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

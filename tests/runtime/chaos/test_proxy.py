"""One connection through the proxy, for each fault."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from openguild_proto.policy.chaos import ChaosPlan, ConnectionPlan, Fault
from openguild_runtime.chaos.proxy import ChaosProxy
from openguild_runtime.client.transport import TRANSPORT_ERRORS

pytestmark = pytest.mark.anyio
TEXT = b"0123456789" * 10


class OnePlan(ChaosPlan):
    """The same fate for every connection."""

    def __init__(self, fault: Fault, *, stall_secs: float = 0.0, life_secs: float = 20.0) -> None:
        self._fate = ConnectionPlan(fault, 25, stall_secs, 0.0, life_secs)

    def next_connection(self) -> ConnectionPlan:
        return self._fate


async def _answer(stream: SocketStream) -> None:
    """The server behind: answers what it gets with TEXT, and stays."""
    async with stream:
        await stream.receive()
        await stream.send(TEXT)
        await anyio.sleep_forever()


@asynccontextmanager
async def proxied(plan: ChaosPlan) -> AsyncIterator[SocketStream]:
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as server,
        await anyio.create_tcp_listener(local_host="127.0.0.1") as near,
        anyio.create_task_group() as tasks,
    ):
        proxy = ChaosProxy(plan, ("127.0.0.1", server.extra(SocketAttribute.local_port)))
        tasks.start_soon(server.serve, _answer)
        tasks.start_soon(near.serve, proxy.serve)
        async with await anyio.connect_tcp("127.0.0.1", near.extra(SocketAttribute.local_port)) as stream:
            yield stream
        tasks.cancel_scope.cancel()


async def _all_of(stream: SocketStream, *, until: int = 1_000) -> tuple[bytes, type[BaseException]]:
    """What comes before the end, and how it ends."""
    data = b""
    try:
        with anyio.fail_after(10):
            while len(data) < until:
                data += await stream.receive()
    except TRANSPORT_ERRORS as end:
        return data, type(end)
    return data, type(None)


async def test_a_whole_connection_ends_in_order_after_its_time() -> None:
    async with proxied(OnePlan(Fault.NONE, life_secs=0.3)) as stream:
        await stream.send(b"x")
        assert await _all_of(stream) == (TEXT, anyio.EndOfStream)


async def test_an_answer_is_cut_by_a_reset() -> None:
    async with proxied(OnePlan(Fault.CUT)) as stream:
        await stream.send(b"x")
        data, end = await _all_of(stream)
        assert TEXT.startswith(data)
        assert len(data) <= 25
        assert end is anyio.BrokenResourceError


async def test_a_stalled_answer_comes_whole() -> None:
    async with proxied(OnePlan(Fault.STALL, stall_secs=0.2)) as stream:
        await stream.send(b"x")
        before = anyio.current_time()
        assert (await _all_of(stream, until=len(TEXT)))[0] == TEXT
        assert anyio.current_time() - before >= 0.2


async def test_a_busy_server_answers_503() -> None:
    async with proxied(OnePlan(Fault.BUSY)) as stream:
        await stream.send(b"GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        data, _ = await _all_of(stream)
        assert data.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: " in data.lower()


async def test_a_connection_is_reset_at_once() -> None:
    async with proxied(OnePlan(Fault.RESET)) as stream:
        assert await _all_of(stream) == (b"", anyio.BrokenResourceError)

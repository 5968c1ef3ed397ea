"""Which address is tried next, which connections are kept, and that none is lost."""

from __future__ import annotations

import anyio
import pytest

from openguild_proto import Response
from openguild_runtime.client.replicas import IDLE_CONNECTIONS, Replicas
from openguild_runtime.client.transport import connect_tcp
from tests.support.scripted import Scripted, scripted
from tests.support.waiting import eventually, free_port

pytestmark = pytest.mark.anyio


async def get(replicas: Replicas, *, fresh: bool = False) -> int | None:
    response, _ = await replicas.exchange("GET", "/x", b"", None, fresh=fresh)
    return response.status if response is not None else None


def test_at_least_one_address_is_needed() -> None:
    with pytest.raises(ValueError, match="address"):
        Replicas((), connect_tcp)


async def test_a_connection_is_used_again_unless_a_fresh_one_is_asked_for() -> None:
    async with scripted(lambda request: Response.text("ok")) as server:
        replicas = Replicas((server.url,), connect_tcp)
        assert [await get(replicas) for _ in range(3)] == [200, 200, 200]
        assert server.connections == 1
        assert await get(replicas, fresh=True) == 200
        assert server.connections == 2
        await replicas.aclose()
        await eventually(lambda: server.ended == 2)


async def test_what_is_cancelled_leaves_no_connection_behind() -> None:
    async with scripted(lambda request: None) as server:
        replicas = Replicas((server.url,), connect_tcp)
        for number in range(1, 4):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(get, replicas)
                    await eventually(lambda number=number: len(server.requests) == number)
                    scope.cancel()
            await eventually(lambda number=number: server.ended == number, what="the end of a cancelled connection")


async def test_idle_connections_are_bounded() -> None:
    release = anyio.Event()

    class Slow(Scripted):
        async def _feed(self, conn, stream, data) -> None:
            await release.wait()
            await super()._feed(conn, stream, data)

    async with scripted(lambda request: Response.text("ok"), Slow) as server:
        replicas = Replicas((server.url,), connect_tcp)
        count = IDLE_CONNECTIONS + 3
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(get, replicas)
            await eventually(lambda: server.connections == count)
            release.set()
        await eventually(lambda: server.ended == 3)
        await replicas.aclose()


async def test_who_fails_or_is_leaving_is_not_asked_next() -> None:
    async with scripted(lambda request: Response.text("away", status=503)) as leaving:
        nobody = f"http://127.0.0.1:{free_port()}"
        replicas = Replicas((nobody, leaving.url), connect_tcp)
        assert await get(replicas) is None
        assert await get(replicas) == 503
        assert replicas.address.authority in nobody
        replicas.avoid(replicas.address)
        first = replicas.address
        replicas.avoid(first)
        replicas.avoid(first)  # somebody else had the same trouble there: one step is enough
        assert replicas.address.authority in nobody
        await replicas.aclose()

"""The choice of addresses, idle connections, and no leaks."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest
from anyio.abc import ByteStream

from openguild_proto import Response, ServerConnection
from openguild_runtime.client.connection_pool import IDLE_CONNECTIONS, IDLE_SECS, ConnectionPool
from openguild_runtime.client.transport import Address, ClientClosed, TlsFailed, connect_tcp
from tests.support.scripted import Answer, Scripted, scripted
from tests.support.waiting import eventually, free_port

pytestmark = pytest.mark.anyio


async def get(replicas: ConnectionPool, *, fresh: bool = False) -> int | None:
    response = (await replicas.attempt("GET", "/x", b"", None, fresh=fresh)).response
    return response.status if response is not None else None


class Gated(Scripted):
    """Answers once `release` is set: until then requests pile up, each on a connection of its own.

    One of `doomed` ends when a request comes.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.release = anyio.Event()
        self.doomed: list[ByteStream] = []

    async def _feed(self, conn: ServerConnection, stream: ByteStream, data: bytes) -> None:
        await self.release.wait()
        if stream in self.doomed:
            await stream.aclose()
            return
        await super()._feed(conn, stream, data)

    async def fill(self, replicas: ConnectionPool, count: int) -> None:
        """Leave `replicas` with as many idle connections as it keeps, of `count`."""
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(get, replicas)
            await eventually(lambda: self.connections == count)
            self.release.set()


def test_at_least_one_address_is_needed() -> None:
    with pytest.raises(ValueError, match="address"):
        ConnectionPool((), connect_tcp, time.monotonic)


async def test_a_closed_pool_says_so_and_keeps_nothing() -> None:
    async with scripted(lambda request: Response.text("ok"), Gated) as server:
        assert isinstance(server, Gated)
        replicas = ConnectionPool((server.url,), connect_tcp, time.monotonic)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(get, replicas)
            await eventually(lambda: server.connections == 1)
            await replicas.aclose()
            server.release.set()
        assert replicas._idle == [], "what was under way is answered, and its connection is not kept"
        with pytest.raises(ClientClosed):
            await get(replicas)
        assert server.connections == 1


async def test_a_connection_is_reused_unless_fresh_is_set() -> None:
    async with scripted(lambda request: Response.text("ok")) as server:
        replicas = ConnectionPool((server.url,), connect_tcp, time.monotonic)
        assert [await get(replicas) for _ in range(3)] == [200, 200, 200]
        assert server.connections == 1
        assert await get(replicas, fresh=True) == 200
        assert server.connections == 2
        await replicas.aclose()
        await eventually(lambda: server.ended == 2)


async def test_tls_that_fails_later_is_an_outage() -> None:
    """As when a certificate has run out: the client of a running program goes on trying."""
    fails = False

    async def connect(address: Address) -> ByteStream:
        if fails:
            raise TlsFailed("the certificate is not trusted")
        return await connect_tcp(address)

    async with scripted(lambda request: Response.text("ok")) as server:
        replicas = ConnectionPool((server.url,), connect, time.monotonic)
        assert await get(replicas) == 200
        fails = True
        result = await replicas.attempt("GET", "/x", b"", None, fresh=True)
        assert (result.response, result.reason) == (None, "the certificate is not trusted")
        fails = False
        assert await get(replicas) == 200
        fails = True
        with pytest.raises(TlsFailed):
            await get(ConnectionPool((server.url,), connect, time.monotonic))
        await replicas.aclose()


async def test_a_cancelled_request_leaves_no_connection() -> None:
    async with scripted(lambda request: None) as server:
        replicas = ConnectionPool((server.url,), connect_tcp, time.monotonic)
        for number in range(1, 4):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(get, replicas)
                    await eventually(lambda number=number: len(server.requests) == number)
                    scope.cancel()
            await eventually(lambda number=number: server.ended == number, what="the end of a cancelled connection")


async def test_idle_connections_are_bounded() -> None:
    async with scripted(lambda request: Response.text("ok"), Gated) as server:
        replicas = ConnectionPool((server.url,), connect_tcp, time.monotonic)
        await server.fill(replicas, IDLE_CONNECTIONS + 3)
        await eventually(lambda: server.ended == 3)
        await replicas.aclose()


async def test_ended_idle_connections_are_not_tried_in_turn() -> None:
    async with scripted(lambda request: Response.text("ok"), Gated) as server:
        replicas = ConnectionPool((server.url,), connect_tcp, time.monotonic)
        await server.fill(replicas, IDLE_CONNECTIONS)
        await server.end_all()
        assert await get(replicas) == 200
        assert server.connections == IDLE_CONNECTIONS + 1
        await replicas.aclose()


async def test_an_ended_idle_connection_closes_the_others() -> None:
    async with scripted(lambda request: Response.text("ok"), Gated) as server:
        replicas = ConnectionPool((server.url, f"http://127.0.0.1:{free_port()}"), connect_tcp, time.monotonic)
        await server.fill(replicas, IDLE_CONNECTIONS)
        server.doomed = list(server.streams)
        asked = await replicas.attempt("GET", "/x", b"", None, fresh=False)
        assert (asked.response, asked.reason, asked.ended_idle) == (None, "the connection ended", True)
        await eventually(lambda: server.ended == IDLE_CONNECTIONS)
        assert await get(replicas, fresh=True) == 200, "the address is not avoided"
        await replicas.aclose()


async def test_the_newest_connection_is_used_and_old_ones_are_not() -> None:
    now = 0.0
    async with scripted(lambda request: Response.text("ok"), Gated) as server:
        replicas = ConnectionPool((server.url,), connect_tcp, lambda: now)
        await server.fill(replicas, 2)
        now = IDLE_SECS
        assert await get(replicas) == 200
        now = 2 * IDLE_SECS
        assert await get(replicas) == 200
        assert server.connections == 2
        await eventually(lambda: server.ended == 1, what="the end of the one that was not used")
        now = 3 * IDLE_SECS + 1
        assert await get(replicas) == 200
        assert server.connections == 3
        await replicas.aclose()


async def test_failing_and_draining_addresses_are_avoided() -> None:
    async with scripted(lambda request: Response.text("away", status=503)) as leaving:
        nobody = f"http://127.0.0.1:{free_port()}"
        replicas = ConnectionPool((nobody, leaving.url), connect_tcp, time.monotonic)
        assert await get(replicas) is None
        assert await get(replicas) == 503
        assert replicas.address.authority in nobody
        replicas.mark_failed(replicas.address)
        first = replicas.address
        replicas.mark_failed(first)
        replicas.mark_failed(first)  # another task failed there too: move on once only
        assert replicas.address.authority in nobody
        await replicas.aclose()


class OfOneLoop(ByteStream):
    """Answers every request, in the event loop in which it was made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def send(self, item: bytes) -> None:
        assert asyncio.get_running_loop() is self._loop

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None:
        assert asyncio.get_running_loop() is self._loop


def test_a_connection_of_an_ended_event_loop_is_not_used() -> None:
    made = list[OfOneLoop]()

    async def connect(address: Address) -> ByteStream:
        made.append(OfOneLoop())
        return made[-1]

    async def ask() -> None:
        for _ in range(2):
            attempt = await pool.attempt("GET", "/", b"", None, fresh=False)
            assert attempt.response is not None

    pool = ConnectionPool(("http://127.0.0.1:1",), connect, lambda: 0.0)
    for _ in range(2):
        anyio.run(ask)
    anyio.run(pool.aclose)
    assert len(made) == 2

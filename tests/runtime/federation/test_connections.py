"""Requests to other servers over real sockets: kept connections, bounds of count, size and time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream

from openguild_proto.effects.federation import PeerUnavailable
from openguild_proto.policy.response_times import ResponseTimes
from openguild_runtime.federation.connections import IDLE_SECS, MAX_AT_ONCE_PER_SERVER, PeerConnections
from openguild_runtime.federation.dialer import Dialer, tls_context

pytestmark = pytest.mark.anyio

SIGNED = b"signature: og=:AA==:\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + SIGNED + b"\r\nok"


class Peer:
    """A scripted server: what it answers on each connection, and what it has seen."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self.port = 0
        self.under_way = self.most = 0
        self.answer: Callable[[ByteStream, bytes], Awaitable[bool]] = self.ok
        self.busy = anyio.Event()  # as many are under way as may be
        self.now = 0.0
        self.address = "127.0.0.1"  # of its name
        dialer = Dialer(lambda: tls_context(None), allow_private=True, resolve=self._resolve)
        self.connections_to = PeerConnections(dialer, lambda: self.now, ResponseTimes())

    async def _resolve(self, host: str, port: int) -> list[str]:
        return [self.address if host == "a.example" else host]

    async def ok(self, stream: ByteStream, request: bytes) -> bool:
        await stream.send(ANSWER)
        return True

    async def serve(self, stream: ByteStream) -> None:
        self.connections += 1
        async with stream:
            try:
                while True:
                    request = await stream.receive()
                    self.requests.append(request)
                    self.under_way += 1
                    self.most = max(self.most, self.under_way)
                    if self.under_way == MAX_AT_ONCE_PER_SERVER:
                        self.busy.set()
                    try:
                        if not await self.answer(stream, request):
                            return
                    finally:
                        self.under_way -= 1
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    async def ask(self, **more: Any) -> bytes:
        url = f"http://{more.pop('host', '127.0.0.1')}:{self.port}"
        asked = {"method": "GET", "target": "/x", "headers": lambda: (("x-sent", "1"),), "timeout_secs": 5.0} | more
        return (await self.connections_to.request("a.example", url, "a.example", **asked)).body

    async def reason(self, **more: Any) -> str:
        with pytest.raises(PeerUnavailable) as unavailable:
            await self.ask(**more)
        return unavailable.value.reason


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with serving() as found:
        yield found


@asynccontextmanager
async def serving() -> AsyncIterator[Peer]:
    peer = Peer()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    peer.port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, peer.serve)
        yield peer
        await peer.connections_to.aclose()
        tasks.cancel_scope.cancel()
    await listener.aclose()


async def test_a_connection_is_kept_for_the_next_request(peer: Peer) -> None:
    for _ in range(5):
        assert await peer.ask() == b"ok"
    assert peer.connections == 1
    assert (
        peer.requests[0].startswith(b"GET /x HTTP/1.1\r\nHost: a.example\r\n") or b"host: a.example" in peer.requests[0]
    )
    peer.now += IDLE_SECS + 1
    assert await peer.ask() == b"ok"
    assert peer.connections == 2


async def test_a_name_that_leads_elsewhere_is_followed_where_its_former_address_still_answers(peer: Peer) -> None:
    """Other than 127.0.0.1, where the server is no more and a proxy says so, on connections that it leaves open."""

    async def gone(stream: ByteStream, request: bytes) -> bool:
        await stream.send(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\ngone")
        return True

    assert await peer.ask(host="a.example") == b"ok"
    peer.answer = gone
    elsewhere = await anyio.create_tcp_listener(local_host="127.0.0.2", local_port=peer.port)
    moved = Peer()
    async with elsewhere, anyio.create_task_group() as tasks:
        tasks.start_soon(elsewhere.serve, moved.serve)
        peer.address = "127.0.0.2"
        assert await peer.ask(host="a.example") == b"gone"
        assert [await peer.ask(host="a.example") for _ in range(3)] == [b"ok"] * 3
        assert (peer.connections, moved.connections) == (1, 1)
        await peer.connections_to.aclose()
        tasks.cancel_scope.cancel()


async def test_each_answer_has_a_bound_of_its_own(peer: Peer) -> None:
    assert await peer.ask(max_bytes=2) == b"ok"
    assert await peer.reason(max_bytes=1) == "broken"
    assert await peer.ask(max_bytes=2) == b"ok"
    assert peer.connections == 2


async def test_a_kept_connection_that_has_ended_is_replaced_and_the_request_signed_again(peer: Peer) -> None:
    signed: list[int] = []

    def sign() -> tuple[tuple[str, str], ...]:
        signed.append(1)
        return (("x-signature", str(len(signed))),)

    async def once(stream: ByteStream, request: bytes) -> bool:
        await stream.send(ANSWER)
        return False

    peer.answer = once
    assert await peer.ask(headers=sign) == b"ok"
    assert await peer.ask(headers=sign) == b"ok"
    assert peer.connections == 2
    assert b"x-signature: 3" in peer.requests[-1] or b"x-signature: 2" in peer.requests[-1]


async def test_few_requests_at_once_to_one_server(peer: Peer) -> None:
    gate = anyio.Event()

    async def wait(stream: ByteStream, request: bytes) -> bool:
        await gate.wait()
        await stream.send(ANSWER)
        return True

    peer.answer = wait
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(peer.ask)
        await peer.busy.wait()
        assert len(peer.requests) == MAX_AT_ONCE_PER_SERVER
        await anyio.wait_all_tasks_blocked()
        assert len(peer.requests) == MAX_AT_ONCE_PER_SERVER
        gate.set()
    assert (len(peer.requests), peer.most) == (20, MAX_AT_ONCE_PER_SERVER)
    assert peer.connections == MAX_AT_ONCE_PER_SERVER


SENT: list[tuple[str, bytes, dict[str, Any], str]] = [
    ("a body that is declared too long", b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n", {"max_bytes": 4_096}, "broken"),
    (
        "chunks without an end", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"400\r\n" + b"x" * 1024 + b"\r\n",
        {"max_bytes": 512}, "broken",
    ),
    ("a head without an end", b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, {}, "broken"),
    ("too many interim responses", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40, {}, "broken"),
    ("another protocol", b"SSH-2.0-OpenSSH_9\r\n\r\n", {}, "broken"),
    ("half an answer", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", {}, "broken"),
    ("nothing at all", b"", {}, "broken"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "sent", "more", "reason"), SENT, ids=[row[0] for row in SENT])
async def test_answers_that_are_none(peer: Peer, what: str, sent: bytes, more: dict[str, Any], reason: str) -> None:
    async def answer(stream: ByteStream, request: bytes) -> bool:
        await stream.send(sent)
        return False

    peer.answer = answer
    assert await peer.reason(**more) == reason
    peer.answer = peer.ok
    assert await peer.ask() == b"ok"


async def test_an_answer_that_comes_too_slowly(peer: Peer) -> None:
    async def drip(stream: ByteStream, request: bytes) -> bool:
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(1_000):
            await stream.send(b"x")
            await anyio.sleep(0.02)
        return False

    peer.answer = drip
    assert await peer.reason(timeout_secs=0.2) == "timeout"


async def test_an_answer_of_more_than_there_is_is_not_kept(peer: Peer) -> None:
    async def more(stream: ByteStream, request: bytes) -> bool:
        await stream.send(ANSWER + ANSWER)
        return True

    peer.answer = more
    assert await peer.ask() == b"ok"
    peer.answer = peer.ok
    assert await peer.ask() == b"ok"
    assert peer.connections == 2, "what came unasked is no answer to the next request"

"""Accept to end of a socket with any handler: turns, failures, quotas, lingering; slow readers of a whole replica."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise

import anyio
import pytest
import structlog

from openguild_proto.connection.timer_wheel import TimerWheel
from openguild_proto.effects.roles import GrantServerRole
from openguild_proto.events import Event, PeerGone, PeerViolated, TextReceived
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.http.message import Request, Response
from openguild_proto.limits import LONG_BODY_BYTES, MAX_WAITING_BODY_BYTES_OF_ADDRESS, TURN_SECS, Limits
from openguild_proto.policy.held_bytes import HeldBytes
from openguild_runtime.net.connection_server import ConnectionServer
from openguild_runtime.net.socket_watch import LoopWatch
from openguild_runtime.net.transport import Rest, Transport, watch_deadlines
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.storage.memory import MemoryStorage
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from tests.support.deeds import NOW, add_channel, add_guild, add_user, append
from tests.support.line import Line, connected
from tests.support.waiting import eventually
from tests.support.wire import HANDSHAKE, masked

pytestmark = pytest.mark.anyio


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


class Handler:
    """Answers with the path, once `go` is set; accepts every upgrade; `/fail` fails."""

    def __init__(self) -> None:
        self.go = anyio.Event()
        self.go.set()
        self.turns: list[str] = []
        self.reported: list[Event] = []
        self.gone_descriptors: list[int] = []

    def begin(self, transport: Transport, request: Request) -> Rest:
        if request.body:
            time.sleep(TURN_SECS)  # as long as it takes to read it
        return partial(self.respond, transport, request)

    async def respond(self, transport: Transport, request: Request) -> None:
        self.turns.append(f"begin {request.path}")
        await self.go.wait()
        if request.path == "/fail":
            raise RuntimeError("a defect")
        if request.is_upgrade:
            transport.connection.accept(time.monotonic())
        else:
            transport.connection.respond(Response.text(request.path), time.monotonic())
        self.turns.append(f"end {request.path}")

    def refuse(self, transport: Transport, request: Request) -> None:
        self.turns.append(f"refuse {request.path}")
        transport.connection.respond(Response.text("too long"), time.monotonic())

    def report(self, transport: Transport, event: Event) -> None:
        self.reported.append(event)

    def gone(self, transport: Transport) -> None:
        self.gone_descriptors.append(transport.socket.fileno())


class Served:
    """A connection server without a replica, and its clients."""

    def __init__(self, server: ConnectionServer, handler: Handler) -> None:
        self.server, self.handler = server, handler

    def connect(self, address: str = "192.0.2.1") -> socket.socket:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        self.server.serve(ours, address)
        return theirs


@asynccontextmanager
async def served(
    limits: Limits | None = None, max_per_address: int = 10, max_connections: int = 10, handler: Handler | None = None
) -> AsyncIterator[Served]:
    handler, sources = handler or Handler(), ClocksAndEntropy()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            timers: TimerWheel[Transport] = TimerWheel(sources.monotonic())
            tasks.start_soon(watch_deadlines, timers, sources.monotonic)
            server = ConnectionServer(
                handler, limits=limits or Limits(), policy=HeaderPolicy(), metrics=Metrics("0", native_ring=False),
                timers=timers, watch=LoopWatch(asyncio.get_running_loop()), tasks=tasks, sources=sources,
                max_connections=max_connections, max_per_address=max_per_address,
            )  # fmt: skip
            yield Served(server, handler)
            server.end_all()
            await server.wait_empty()
            tasks.cancel_scope.cancel()


async def read(end: socket.socket, wanted: bytes) -> bytes:
    """What comes, up to `wanted` at its end; b"" wanted: up to the end of the stream."""
    loop, got = asyncio.get_running_loop(), b""
    while not (wanted and got.endswith(wanted)):
        data = await loop.sock_recv(end, 65_536)
        if not data:
            break
        got += data
    return got


async def test_pipelined_requests_have_their_turns_one_after_the_other() -> None:
    async with served() as them:
        with them.connect() as end:
            end.sendall(get("/1") + get("/2") + get("/3"))
            assert (await read(end, b"/3")).count(b"HTTP/1.1 200 OK") == 3
    assert them.handler.turns == [f"{what} /{number}" for number in (1, 2, 3) for what in ("begin", "end")]


async def test_what_one_address_has_pipelined_does_not_hold_up_another() -> None:
    async with served() as them:
        many, other = [them.connect() for _ in range(5)], them.connect("198.51.100.1")
        for number, end in enumerate([*many, other]):
            end.sendall(get(f"/{number}") + get(f"/{number}-second"))
        for number, end in enumerate([*many, other]):
            await read(end, b"/%d-second" % number)
            end.close()
    second = [turn for turn in them.handler.turns if turn.startswith("begin") and turn.endswith("second")]
    assert second == [f"begin /{number}-second" for number in (0, 5, 1, 2, 3, 4)]


async def test_many_long_bodies_do_not_hold_up_what_is_short() -> None:
    body = b"x" * (LONG_BODY_BYTES + 1)
    async with served() as them:
        many, one, short = [them.connect() for _ in range(5)], them.connect("198.51.100.1"), them.connect()
        for number, end in enumerate([*many, one]):
            end.sendall(b"POST /%d HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (number, len(body)) + body)
        short.sendall(get("/short"))
        for number, end in enumerate([*many, one]):
            await read(end, b"/%d" % number)
        await read(short, b"/short")
        for end in (*many, one, short):
            end.close()
    began = [turn.removeprefix("begin /") for turn in them.handler.turns if turn.startswith("begin")]
    assert [number for number in began if number in "01234"] == list("01234")
    assert began.index("short") < began.index("2"), "each long body has a turn of the loop to itself"
    assert began.index("5") < began.index("3"), "another address does not wait behind all of them"


class SlowHandler(Handler):
    """Takes a quarter of a turn for each message."""

    def report(self, transport: Transport, event: Event) -> None:
        time.sleep(TURN_SECS / 4)
        super().report(transport, event)


async def test_many_messages_at_once_leave_the_loop_to_others_in_between() -> None:
    texts = [f"{number}".ljust(250) for number in range(100)]
    seen = {0, len(texts)}  # numbers of messages at the turns of another task
    async with served(handler=SlowHandler()) as them, anyio.create_task_group() as tasks:
        reported = them.handler.reported

        async def other() -> None:
            while True:
                seen.add(len(reported))
                await asyncio.sleep(0)

        with them.connect() as end:
            end.sendall(HANDSHAKE)
            await read(end, b"\r\n\r\n")
            tasks.start_soon(other)
            end.sendall(b"".join(masked(0x81, text.encode()) for text in texts))
            await eventually(lambda: len(reported) >= len(texts), what="all messages")
        tasks.cancel_scope.cancel()
    assert [event.text for event in reported if isinstance(event, TextReceived)] == texts
    turns = sorted(seen)
    assert max(after - before for before, after in pairwise(turns)) < len(texts) / 4


async def test_of_one_address_so_many_long_bodies_wait() -> None:
    body = bytes(1024 * 1024)
    fitting = MAX_WAITING_BODY_BYTES_OF_ADDRESS // len(body)
    head = b"POST /long HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with served(max_connections=fitting + 2, max_per_address=fitting + 1) as them:
        ends = [them.connect() for _ in range(fitting + 1)]
        with them.connect("198.51.100.1") as other:
            senders = [(end, memoryview(head + body)) for end in (*ends, other)]
            async with anyio.create_task_group() as sending:
                for end, data in senders:
                    sending.start_soon(asyncio.get_running_loop().sock_sendall, end, data[:-1])
            held = (fitting + 2) * (len(body) - 1)
            await eventually(lambda: them.server.unfinished_bodies.total_bytes == held)
            for end, data in senders:
                end.send(data[-1:])
            answers = [await read(end, b"long") for end in ends]
            assert (await read(other, b"long")).endswith(b"/long"), "another address has room"
        for end in ends:
            end.close()
    assert [answer.endswith(b"too long") for answer in answers].count(True) == 1


async def test_requests_are_answered_before_the_peer_s_end_is_looked_at() -> None:
    async with served() as them:
        with them.connect() as end:
            end.sendall(get("/1") + get("/2"))
            end.shutdown(socket.SHUT_WR)
            assert (await read(end, b"")).count(b"HTTP/1.1 200 OK") == 2
    assert them.handler.reported == [PeerGone()]


async def test_a_handler_that_fails_ends_its_connection_alone() -> None:
    async with served() as them:
        with them.connect() as other, them.connect() as end:
            with structlog.testing.capture_logs() as records:
                end.sendall(get("/fail"))
                assert await read(end, b"") == b""
            other.sendall(get("/1"))
            await read(other, b"/1")
    assert [record["event"] for record in records] == ["connection failed"]


async def test_a_socket_that_cannot_be_watched_is_let_go_of() -> None:
    async with served() as them:
        closed = socket.socket()
        closed.close()
        with structlog.testing.capture_logs() as logs:
            them.server.serve(closed, "192.0.2.1")
        assert [line["event"] for line in logs] == ["connection failed"]
        assert not them.server.transports
        with them.connect() as end:
            end.sendall(get("/1"))
            assert b"200 OK" in await read(end, b"/1")


async def test_the_handler_lets_go_of_a_socket_before_it_is_closed_and_once() -> None:
    async with served() as them:
        with them.connect() as request, them.connect() as stream:
            request.sendall(get("/1"))
            stream.sendall(HANDSHAKE + masked(0x81, b"hello"))
            await read(request, b"/1")
            await read(stream, b"\r\n\r\n")
            transports = list(them.server.transports)
            await eventually(lambda: TextReceived("hello") in them.handler.reported)
    assert len(them.handler.gone_descriptors) == 2
    assert all(descriptor >= 0 for descriptor in them.handler.gone_descriptors)
    assert [transport.socket.fileno() for transport in transports] == [-1, -1]


@pytest.mark.parametrize("peer_ends", [True, False])
async def test_after_a_refusal_the_peer_may_still_send_for_a_moment(peer_ends: bool) -> None:
    """RFC 9112 9.6: what it sends is dropped, and does not destroy the answer."""
    async with served(Limits(linger_timeout_secs=0.2 if not peer_ends else 60.0)) as them:
        with them.connect() as end:
            end.sendall(b"nonsense\r\n\r\n")
            assert (await read(end, b"")).startswith(b"HTTP/1.1 400 ")
            end.sendall(get("/1"))
            (transport,) = them.server.transports
            assert not transport.closing
            if peer_ends:
                end.close()
            await eventually(lambda: not them.server.transports)
    assert them.handler.turns == []
    assert [type(event) for event in them.handler.reported] == [PeerViolated, PeerGone][: 1 + peer_ends]


async def test_one_address_and_a_draining_server_have_their_bounds() -> None:
    async with served(max_per_address=1) as them:
        with them.connect() as first:
            first.sendall(get("/1"))
            await read(first, b"/1")
            with them.connect() as second:
                assert await read(second, b"") == b""
            first.close()
            await them.server.wait_empty()
            them.server.admission.draining = True
            with them.connect() as third:
                assert await read(third, b"") == b""


async def test_room_is_made_by_a_connection_that_waits_and_not_by_one_that_is_answered() -> None:
    async with served() as them:
        them.handler.go = anyio.Event()
        with them.connect() as asked, them.connect() as idle:
            asked.sendall(get("/1"))
            await eventually(lambda: them.handler.turns and len(them.server.transports) == 2)
            assert them.server.shed()
            assert await read(idle, b"") == b""
            await eventually(lambda: len(them.server.transports) == 1)
            assert not them.server.shed()
            them.handler.go.set()
            await read(asked, b"/1")


async def test_of_too_many_waiting_answers_the_one_that_waits_longest_is_given_up() -> None:
    """Each page is bounded; readers that take none of it are bounded together."""
    storage = MemoryStorage()
    owner = await add_user(storage)
    channel = await add_channel(storage, await add_guild(storage, owner), owner)
    for _ in range(100):
        await storage.perform(append(channel, text="x" * 10_000))
    async with connected(storage) as line:
        server, path = line.server, f"/channels/{channel}/events?limit=200"
        await storage.perform(GrantServerRole(user_id=line.user, role="moderator", now_ms=NOW))
        server.connection_server.unsent_responses = HeldBytes(1_200_000)
        ends = [line.end]
        for _ in range(2):
            ours, theirs = socket.socketpair()
            for end in (ours, theirs):
                end.setblocking(False)
            server.connection_server.serve(ours, "192.0.2.1")
            ends.append(theirs)
        for end in ends:
            await Line(server, line.token, line.user, end).ask("GET", path)  # and reads no more than the beginning
        await eventually(lambda: len(server.connection_server.transports) == 1)
        total = server.connection_server.unsent_responses.total_bytes
        assert 0 < total <= 1_200_000
        rejected = server.metrics.render().decode()
        assert 'openguild_messaging_rejections_total{reason="slow_reader"} 2.0' in rejected
        for end in ends[1:]:
            end.close()
        await eventually(lambda: server.connection_server.unsent_responses.total_bytes == 0)


async def test_of_too_many_unfinished_bodies_the_first_is_given_up() -> None:
    """Each body is bounded; those that do not end are bounded together, also before anybody has authenticated."""
    async with served() as them:
        bodies = them.server.unfinished_bodies = HeldBytes(100_000)
        head, part = b"POST /1 HTTP/1.1\r\nhost: x\r\ncontent-length: 40000\r\n\r\n", b"x" * 30_000
        with them.connect() as first, them.connect() as second, them.connect() as third, them.connect() as fourth:
            for count, end in enumerate((first, second, third), start=1):
                end.sendall(head + part)
                await eventually(lambda count=count: bodies.total_bytes >= count * len(part))
            second.sendall(b"x" * 10_000)
            assert await read(second, b"/1"), "whole: its bytes no longer count"
            assert bodies.total_bytes < 3 * len(part)
            fourth.sendall(head + part)
            await eventually(lambda: bodies.total_bytes >= 3 * len(part))
            second.sendall(head + part)
            assert await read(first, b"") == b""
            third.sendall(b"x" * 10_000)
            assert await read(third, b"/1")
        await eventually(lambda: bodies.total_bytes == 0)


async def test_an_unfinished_body_behind_a_request_counts_until_its_deadline() -> None:
    async with served(Limits(body_timeout_secs=0.5)) as them:
        with them.connect() as end:
            end.sendall(get("/1") + b"POST /2 HTTP/1.1\r\nhost: x\r\ncontent-length: 40000\r\n\r\n" + b"x" * 30_000)
            assert await read(end, b"/1")
            await eventually(lambda: them.server.unfinished_bodies.total_bytes == 30_000)
            assert b" 408 " in await read(end, b"}")
            assert them.server.unfinished_bodies.total_bytes == 0


async def test_a_replay_from_memory_leaves_with_the_response_to_the_upgrade() -> None:
    """One call for both, and no task: a reconnect storm asks for the same page thousands of times."""
    storage = MemoryStorage()
    owner = await add_user(storage)
    channel = await add_channel(storage, await add_guild(storage, owner), owner)
    for _ in range(50):
        await storage.perform(append(channel, text="x"))
    async with connected(storage) as line:
        server, path = line.server, f"/channels/{channel}/ws"
        await storage.perform(GrantServerRole(user_id=line.user, role="moderator", now_ms=NOW))
        await server.replica.start()
        got = await line.upgrade(path)
        while got.count("\x81") < 50:
            got += await line.read()
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        server.connection_server.serve(ours, "192.0.2.1")
        with theirs:
            again = await Line(server, line.token, line.user, theirs).upgrade(path)
        assert again.startswith("HTTP/1.1 101 ")
        assert again.count('"sequence":') == got.count('"sequence":') >= 50
        line.end.close()
        await eventually(lambda: not server.connection_server.transports)

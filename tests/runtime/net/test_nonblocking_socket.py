"""A connection leaves nothing behind, however its peer ends it, in whatever phase, on uvloop and on asyncio's own loop.

The peer's bytes and its end are there before the loop looks: it hears of both at once. The timers do not turn, so no
deadline helps.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import pytest
import structlog

from openguild_proto.effects import StorageEffect
from openguild_proto.effects.replica import ReadVisible
from openguild_proto.replica.actions import Flush, Urgency
from openguild_proto.ws.frames import text_frame
from openguild_runtime.net import nonblocking_socket
from openguild_runtime.net.nonblocking_socket import NonblockingSocket
from openguild_runtime.net.socket_watch import LoopWatch, SocketWatch, make_watch
from openguild_runtime.storage.memory import MemoryStorage
from tests.support.deeds import add_channel, add_guild, append
from tests.support.line import Line, connected
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio
T = TypeVar("T")
HEAD = b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n"
CLOSE_FRAME = bytes((0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8))
PING = bytes((0x89, 0x80, 0, 0, 0, 0))


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def close(sock: socket.socket) -> None:
    """With unread data this is a reset too (RFC 9293 3.6.1), with all read it is a FIN."""
    sock.close()


ENDS = [reset, close]


def tcp_pair(receive_buffer: int | None = None) -> tuple[socket.socket, socket.socket]:
    """The server's end and the client's, of one loopback connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.socket()
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
    for end in (server, client):
        end.setblocking(False)
    return server, client


class Blocking(MemoryStorage):
    """What a user sees takes until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = anyio.Event(), anyio.Event()

    async def perform(self, effect: StorageEffect[T]) -> T:
        if isinstance(effect, ReadVisible):
            self.asked.set()
            await self.go.wait()
        return await super().perform(effect)


Phase = Callable[[Line], Any]


def request(line: Line, path: str, *headers: str, method: str = "GET") -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "host: x", f"authorization: Bearer {line.token}", *headers, "", "")
    return "\r\n".join(lines).encode()


def handshake(line: Line, path: str = "/notifications/ws") -> bytes:
    key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
    return request(line, path, "upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13", key)


async def silent(line: Line) -> None:
    """Nothing was sent."""


async def half_a_head(line: Line) -> None:
    line.end.sendall(HEAD[:20])


async def half_a_body(line: Line) -> None:
    line.end.sendall(b"POST /users/register HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")


async def one_request(line: Line) -> None:
    line.end.sendall(HEAD)


async def answer_unread(line: Line) -> None:
    line.end.sendall(HEAD)
    await anyio.wait_readable(line.end)


async def second_request_with_the_answer_unread(line: Line) -> None:
    await answer_unread(line)
    line.end.sendall(HEAD)


async def pipelined(line: Line) -> None:
    line.end.sendall(HEAD * 20)


async def last_request_answered(line: Line) -> None:
    line.end.sendall(HEAD.replace(b"host", b"connection: close\r\nhost"))
    await anyio.wait_readable(line.end)


async def refused(line: Line) -> None:
    line.end.sendall(b"nonsense\r\n\r\n")
    await anyio.wait_readable(line.end)


async def reading_none_of_a_large_answer(line: Line) -> None:
    channel = await a_channel_of(line, events=200)
    line.end.sendall(request(line, f"/channels/{channel}/events?limit=200") * 8)
    (transport,) = line.server.connection_server.transports
    await eventually(lambda: transport.connection.outbox and not transport.flushed())


async def upgrade_on_its_way(line: Line) -> None:
    line.end.sendall(handshake(line))


async def upgraded(line: Line) -> None:
    await upgrade_on_its_way(line)
    await eventually(line.server.replica.streams.transports)


async def stream_with_its_101_read(line: Line) -> None:
    await line.upgrade()


async def close_frame_with_events_unread(line: Line) -> None:
    await upgraded(line)
    line.end.sendall(CLOSE_FRAME)


async def ping_and_half_a_frame(line: Line) -> None:
    await upgraded(line)
    line.end.sendall(PING + CLOSE_FRAME[:3])


async def closed_by_us(line: Line) -> None:
    await upgraded(line)
    (transport,) = line.server.replica.streams.transports()
    transport.close(1012, "going")


async def events_are_published(line: Line) -> None:
    """The flush meets the reset before the reader does."""
    await stream_with_its_101_read(line)
    (transport,) = line.server.replica.streams.transports()
    assert transport.subscriber is not None
    ring = transport.subscriber.ring
    line.server.replica.replica.hub.publish(ring, text_frame(b"x" * 100), 1)
    line.server.replica.actions.perform(Flush(ring, Urgency.SOON))


async def reading_none_of_a_replay(line: Line) -> None:
    channel = await a_channel_of(line, events=200)
    line.end.sendall(handshake(line, f"/channels/{channel}/ws?since=0"))
    await eventually(line.server.replica.streams.transports)
    (transport,) = line.server.replica.streams.transports()
    await eventually(lambda: len(transport.connection.outbox) > 0)


async def a_channel_of(line: Line, events: int) -> str:
    storage = line.server.storage
    channel = await add_channel(storage, await add_guild(storage, line.user), line.user)
    for _ in range(events):
        await storage.perform(append(channel, text="x" * 20_000))
    return channel


PHASES: list[Phase] = [
    silent, half_a_head, half_a_body, one_request, answer_unread, second_request_with_the_answer_unread, pipelined,
    last_request_answered, refused, reading_none_of_a_large_answer, upgrade_on_its_way, upgraded, stream_with_its_101_read,
    close_frame_with_events_unread, ping_and_half_a_frame, closed_by_us, events_are_published, reading_none_of_a_replay,
]  # fmt: skip


@asynccontextmanager
async def line_of(storage: MemoryStorage | None = None) -> AsyncIterator[Line]:
    async with connected(storage, ends=tcp_pair(receive_buffer=8_192)) as line, left_as_it_was(line):
        yield line


@asynccontextmanager
async def left_as_it_was(line: Line) -> AsyncIterator[None]:
    """After the block the replica has neither connection, place, subscriber, task nor an error in its log."""
    server = line.server
    await eventually(lambda: server.connection_server.transports)
    (transport,) = server.connection_server.transports
    tasks = len(asyncio.all_tasks())  # a connection that has sent nothing has none
    with structlog.testing.capture_logs() as records:
        yield
        await eventually(lambda: not server.connection_server.transports, what="the end of the connection")
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks, what="the end of its tasks")
    assert transport.socket.fileno() == -1
    assert server.service.sockets.total == 0
    assert server.connection_server.admission._quota._held == {}
    assert server.replica.replica.hub.depths() == []
    assert [record for record in records if record["log_level"] in {"error", "critical"}] == []


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
async def test_nothing_is_left_of_a_peer_that_ends(phase: Phase, end: Callable[[socket.socket], None]) -> None:
    async with line_of() as line:
        await phase(line)
        end(line.end)


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
async def test_nothing_is_left_when_the_server_gives_a_peer_up(phase: Phase) -> None:
    async with line_of() as line:
        await phase(line)
        line.server.connection_server.end_all()


async def test_a_pump_that_is_cancelled_ends_its_connection() -> None:
    """Whoever waits for the pump could only start it again, in a group of tasks that takes none."""
    async with line_of() as line:
        await reading_none_of_a_large_answer(line)
        (transport,) = line.server.connection_server.transports
        await eventually(lambda: transport.is_pumping)
        line.server.tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await eventually(lambda: not line.server.connection_server.transports)


@pytest.mark.parametrize("end", ENDS)
async def test_a_request_under_way_is_finished_and_nothing_is_left(end: Callable[[socket.socket], None]) -> None:
    storage = Blocking()
    async with line_of(storage) as line:
        line.end.sendall(handshake(line))
        await storage.asked.wait()
        line.end.sendall(CLOSE_FRAME)
        end(line.end)
        await anyio.wait_all_tasks_blocked()
        storage.go.set()


@pytest.fixture(params=["the system's", "the loop's"])
def watch(request: pytest.FixtureRequest, anyio_backend: tuple[str, dict[str, Any]]) -> Callable[[], SocketWatch]:
    """Makes a watch while the loop runs."""
    if request.param == "the system's":
        return lambda: make_watch(asyncio.get_running_loop())
    if anyio_backend[1]["use_uvloop"]:
        pytest.skip("on Linux libuv stops after one report of a broken socket")
    return lambda: LoopWatch(asyncio.get_running_loop())


class Waiting:
    """Is told that there is something to read."""

    def __init__(self) -> None:
        self.ready = anyio.Event()

    def readable(self) -> None:
        self.ready.set()


async def received(transport: NonblockingSocket, size: int) -> bytes:
    """Up to `size` bytes once there are some, b"" when there will be no more."""
    while (data := transport.receive(size)) is None:
        waiting = Waiting()
        transport.call_when_readable(waiting.readable)
        await waiting.ready.wait()
    return data


@pytest.mark.parametrize("end", ENDS)
async def test_a_reset_that_comes_with_data_ends_the_stream_after_the_data(
    end: Callable[[socket.socket], None], watch: Callable[[], SocketWatch]
) -> None:
    server, client = tcp_pair()
    with server:
        transport = NonblockingSocket(server, watch())
        server.send(b"unread")
        client.send(b"last words")
        end(client)
        assert await received(transport, 100) == b"last words"
        with anyio.fail_after(5):
            assert await received(transport, 100) == b""
            await transport.writable()
        transport.close()


async def test_whoever_waits_to_read_or_to_write_wakes_at_the_end(watch: Callable[[], SocketWatch]) -> None:
    server, client = tcp_pair()
    with client:
        transport = NonblockingSocket(server, watch())
        while transport.send(b"x" * 65_536):
            pass  # until the kernel takes no more
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(received, transport, 100)
            tasks.start_soon(transport.writable)
            await anyio.wait_all_tasks_blocked()
            transport.end()
        assert transport.receive(100) == b""
        assert transport.send(b"x") is None
        transport.close()
        transport.close()


async def test_an_ended_socket_that_nobody_wants_to_read_is_not_reported_again(
    watch: Callable[[], SocketWatch],
) -> None:
    """As while a request is under way whose peer is gone: the loop would be busy until it ends."""

    class Busy:
        calls = 0

        def readable(self) -> None:
            self.calls += 1
            transport.read_on(False)

    server, client = tcp_pair()
    with client:
        transport, reader = NonblockingSocket(server, watch()), Busy()
        transport.call_when_readable(reader.readable)
        transport.end()
        for _ in range(100):
            await asyncio.sleep(0)
        assert 1 <= reader.calls <= 3
        transport.close()


async def test_a_descriptor_is_free_for_its_next_owner(watch: Callable[[], SocketWatch]) -> None:
    """uvloop remembers by number what it watches."""
    for _ in range(3):
        server, client = tcp_pair()
        transport = NonblockingSocket(server, watch())
        client.send(b"x")
        reset(client)
        with anyio.fail_after(5):
            while await received(transport, 1):
                pass
        transport.close()


@pytest.mark.parametrize("size", [1, 4_000, 65_536])
async def test_nothing_that_was_received_stays_in_the_buffer_that_all_share(
    size: int, watch: Callable[[], SocketWatch]
) -> None:
    server, client = tcp_pair()
    received = NonblockingSocket(server, watch())
    client.sendall(b"p" * size)
    left = size
    while left:
        await anyio.wait_readable(server)
        data = received.receive(65_536)
        assert data
        assert data == b"p" * len(data)
        left -= len(data)
    assert not any(nonblocking_socket._BUFFER)
    received.close()
    client.close()

"""A crowd in one channel: everyone gets every event, the loop stays responsive, and bursts take few sends."""

from __future__ import annotations

import resource
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from openguild_runtime.embedded import EmbeddedNats
from tests.support.busy import starved_secs
from tests.support.chat import User
from tests.support.raw import UPGRADE
from tests.support.server import ServerProcess

CROWD = 800
POSTS = 30
AT_ONCE = 100  # concurrent upgrades: more would wait too long for the database on a busy machine


@pytest.fixture
def server(database_url: str, nats_server: EmbeddedNats, tmp_path: Path) -> Iterator[ServerProcess]:
    limits = {f"WEBSOCKET__MAX_CONNECTIONS{end}": 10_000 for end in ("", "_PER_USER", "_PER_ADDRESS")}
    with ServerProcess(tmp_path, DATABASE_URL=database_url, NATS__URL=nats_server.url, **limits).start() as process:
        yield process
        assert process.stop() == 0


@contextmanager
def crowd(server: ServerProcess, user: User, channel: str, count: int) -> Iterator[list[socket.socket]]:
    """Yield `count` sockets after their upgrade."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    request = f"GET /channels/{channel}/ws HTTP/1.1\r\n".encode() + UPGRADE
    request += f"Authorization: Bearer {user.token}\r\n\r\n".encode()
    sockets: list[socket.socket] = []
    try:
        while len(sockets) < count:  # the server closes sockets that are silent for long
            new = [
                socket.create_connection(("127.0.0.1", server.port), timeout=20)
                for _ in range(min(AT_ONCE, count - len(sockets)))
            ]
            sockets += new
            for sock in new:
                sock.sendall(request)
            for sock in new:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    data = sock.recv(1)
                    assert data, (head, "closed")
                    head += data
                assert head.startswith(b"HTTP/1.1 101"), head
        yield sockets
    finally:
        for sock in sockets:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def read_all(sockets: list[socket.socket], last: bytes, secs: float = 30.0) -> list[bytes]:
    """Return the bytes that each socket gets, up to `last`."""
    got = {sock: bytearray() for sock in sockets}
    deadline = time.monotonic() + secs
    with selectors.DefaultSelector() as selector:
        for sock in sockets:
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ)
        while selector.get_map():
            assert time.monotonic() < deadline, f"{len(selector.get_map())} sockets miss something"
            for key, _ in selector.select(1.0):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                data = sock.recv(1 << 20)
                assert data, "closed"
                got[sock] += data
                if last in got[sock]:
                    selector.unregister(sock)
    return [bytes(data) for data in got.values()]


def test_everybody_gets_everything_while_health_answers(server: ServerProcess) -> None:
    alice = server.chat().user()
    channel = alice.channel(alice.guild())
    assert server.process is not None
    process, longest = server.process.pid, 0.0
    done = threading.Event()

    def starved() -> float:
        return starved_secs(process) + starved_secs("self") + starved_secs("thread-self")

    def watch() -> None:
        nonlocal longest
        with httpx.Client(base_url=server.base_url, trust_env=False, verify=False) as client:
            while not done.wait(0.005):
                started = time.monotonic() - starved()
                assert client.get("/health").text == "ok"
                longest = max(longest, time.monotonic() - starved() - started)

    with crowd(server, alice, channel, CROWD) as sockets, ThreadPoolExecutor(2) as others:
        before, starved_before = server.longer_stalls(), starved_secs(process)
        watching = others.submit(watch)
        posting = others.submit(lambda: [alice.say(channel, f"n{number}") for number in range(POSTS)])
        received = read_all(sockets, f'"n{POSTS - 1}"'.encode())
        posting.result()
        done.set()
        watching.result()
    for data in received:
        places = [data.index(f'"content":"n{number}"'.encode()) for number in range(POSTS)]
        assert places == sorted(places)
        assert data.count(b'"event_type":"message"') == POSTS
    assert longest < 1.5, "as this process sees it, which reads for the whole crowd meanwhile"
    after, starved_secs_here = server.longer_stalls(), starved_secs(process) - starved_before
    bound = min(bound for bound in before if bound >= 0.25 + starved_secs_here)  # generous: tests share two cores
    assert after[bound] == before[bound]
    assert server.metric("openguild_messaging_events_total", outcome="dropped") == 0


def test_a_burst_leaves_in_few_sends_and_a_single_event_at_once(server: ServerProcess) -> None:
    alice = server.chat().user()
    channel = alice.channel(alice.guild())
    with crowd(server, alice, channel, 50) as sockets:
        alice.say(channel, "alone")
        read_all(sockets, b'"alone"')
        assert server.metric("openguild_flush_sends_total") == 50
        with ThreadPoolExecutor(32) as posters:
            list(posters.map(lambda number: alice.say(channel, f"b{number}"), range(200)))
        alice.say(channel, "the end")
        received = read_all(sockets, b'"the end"')
        for data in received:
            assert data.count(b'"event_type":"message"') == 201
        sends = server.metric("openguild_flush_sends_total") - 50
        assert 50 <= sends < 0.9 * 50 * 201, "events that wait together leave together"

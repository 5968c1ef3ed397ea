"""A drain: requests in progress are finished, new ones are refused, and every stream is told (PROTOCOL 12)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
from anyio.from_thread import start_blocking_portal
from websockets.exceptions import ConnectionClosed

from tests.support.chat import receive, texts
from tests.support.raw import HOST, UPGRADE, RawClient
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE_SECS, wait_until


def begin_drain(server: ServerProcess) -> None:
    """Send the signal and wait until the listener is closed."""
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: server.status("/health") == 0, what="the end of listening")


@contextmanager
def locked(url: str, table: str) -> Iterator[None]:
    """Lock `table` against other reads and writes until the block ends."""
    with start_blocking_portal() as portal:
        connection = portal.call(asyncpg.connect, url)
        portal.call(connection.execute, f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        try:
            yield
        finally:
            portal.call(connection.execute, "ROLLBACK")
            portal.call(connection.close)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_server(number: signal.Signals, database_url: str, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, DATABASE_URL=database_url, DRAIN__DELAY_SECS=1)
    with server.start():
        alice = server.chat().user()
        channel = alice.channel(alice.guild())
        with alice.stream(channel) as stream, alice.notifications() as notifications:
            assert server.process is not None
            server.process.send_signal(number)
            wait_until(lambda: server.status("/ready") == 503)  # this comes first, while the server still serves
            alice.say(channel, "during the delay")
            assert texts(receive(stream, 1)) == ["during the delay"]
            for socket in (stream, notifications):
                with pytest.raises(ConnectionClosed) as closed:
                    for _ in range(10):
                        socket.recv(timeout=PATIENCE_SECS)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1012
                assert "reconnect in" in closed.value.rcvd.reason
        assert server.process.wait(10) == 0
        assert "stopped" in [
            record["message"] for record in server.records()[-3:]
        ]  # the lines of requests are written one loop turn later


@pytest.mark.parametrize("sent", ["half a head", "half a body"])
def test_a_request_that_has_begun_is_answered(sent: str, database_url: str, tmp_path: Path) -> None:
    with ServerProcess(tmp_path, DATABASE_URL=database_url, DRAIN__WINDOW_SECS=10).start() as server:
        alice = server.chat().user()
        channel = alice.channel(alice.guild())
        body = b'{"content":"begun before the signal"}'
        request = (
            (
                f"POST /channels/{channel}/messages HTTP/1.1\r\nAuthorization: Bearer {alice.token}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            ).encode()
            + HOST
            + b"\r\n"
            + body
        )
        cut = 20 if sent == "half a head" else len(request) - 5
        with RawClient(server.port) as client, RawClient(server.port) as idle:
            idle.send(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")
            assert idle.answer().status == 200
            client.send(request[:cut])
            begin_drain(server)
            assert idle.read_to_end() == b"", "nothing is under way here"
            client.send(request[cut:])
            answer = client.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert client.read_to_end() == b""
        assert server.process is not None
        assert server.process.wait(10) == 0


def test_an_answer_on_its_way_arrives_whole(database_url: str, tmp_path: Path) -> None:
    """The signal arrives before the client has read any of the answer."""
    with ServerProcess(tmp_path, DATABASE_URL=database_url, DRAIN__WINDOW_SECS=10).start() as server:
        alice = server.chat().user()
        channel = alice.channel(alice.guild())
        for _ in range(200):
            alice.say(channel, "\u6f22" * 4_000)
        with RawClient(server.port) as client:
            head = f"GET /channels/{channel}/events?limit=200 HTTP/1.1\r\nAuthorization: Bearer {alice.token}\r\n"
            client.send(head.encode() + HOST + b"\r\n")
            wait_until(lambda: any(record.get("route", "").endswith("/events") for record in server.records()))
            begin_drain(server)
            page = client.answer().json()
            assert [event["sequence"] for event in page] == list(range(201 - len(page), 201))
            assert len(page) > 50, "a MiB of it"
        assert server.process is not None
        assert server.process.wait(10) == 0
        cut = [record["connections_cut"] for record in server.records() if "connections_cut" in record]
        assert cut == [0]


def test_no_stream_opens_while_the_others_are_closed(database_url: str, tmp_path: Path) -> None:
    """The signal arrives while the stream's access is checked: the stream must not stay open unnoticed."""
    with ServerProcess(tmp_path, DATABASE_URL=database_url, DRAIN__WINDOW_SECS=10).start() as server:
        alice = server.chat().user()
        channel = alice.channel(alice.guild())
        with RawClient(server.port) as client:
            with locked(database_url, "channels"):
                head = f"GET /channels/{channel}/ws HTTP/1.1\r\nAuthorization: Bearer {alice.token}\r\n"
                client.send(head.encode() + UPGRADE + b"\r\n")
                begin_drain(server)
            answer = client.answer()
            assert (answer.status, answer.json()["error"]) == (503, "draining")
        assert server.process is not None
        assert server.process.wait(5) == 0, "nothing is left to wait for"

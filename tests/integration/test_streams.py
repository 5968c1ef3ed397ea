"""Both kinds of stream: resume, limits, heartbeat, close codes, authentication (PROTOCOL 8)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.chat import Chat, User, receive, texts, told
from tests.support.raw import UPGRADE, RawClient
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE_SECS, wait_until


def close_of(stream: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            stream.recv(timeout=PATIENCE_SECS)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


def refused(user: User, path: str, **query: object) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as status:
        user.socket(path, **query)
    return status.value


def test_without_since_the_newest_replay_window_comes(alice: User, channel: str) -> None:
    for number in range(1, 61):
        alice.say(channel, str(number))
    with alice.stream(channel) as stream:
        assert texts(receive(stream, 50)) == [str(number) for number in range(11, 61)]


def test_since_replays_everything_in_pages(alice: User, channel: str) -> None:
    """The replay has more than two pages of the log and exceeds the ring; then live events follow."""
    with ThreadPoolExecutor(8) as posters:
        list(posters.map(lambda number: alice.say(channel, str(number)), range(450)))
    with alice.stream(channel, since=3) as stream:
        assert [frame["sequence"] for frame in receive(stream, 447)] == list(range(4, 451))
        alice.say(channel, "live")
        assert texts(receive(stream, 1)) == ["live"]


def test_nothing_is_lost_between_replay_and_live(alice: User, channel: str) -> None:
    """Streams open while posts continue: each gets all sequences from its start."""
    with ThreadPoolExecutor(6) as pool:
        posting = [pool.submit(alice.say, channel, str(number)) for number in range(200)]
        with ExitStack() as opened:
            streams = []
            while len(streams) < 12 and not all(post.done() for post in posting):
                since = len(alice.history(channel, limit=200)) // 2
                streams.append((since, opened.enter_context(alice.stream(channel, since=since))))
            for post in posting:
                post.result()
            assert len(streams) > 3, "streams were to be opened while posts went on"
            for since, stream in streams:
                sequences = [frame["sequence"] for frame in receive(stream, 200 - since)]
                assert sequences == list(range(since + 1, 201))


def test_since_beyond_the_head_is_refused_before_the_upgrade(alice: User, channel: str) -> None:
    alice.say(channel, "x")
    answer = refused(alice, f"/channels/{channel}/ws", since=2).response
    assert (answer.status_code, json.loads(answer.body or b"")["error"]) == (400, "invalid_since")
    for bad in (-1, "abc", ""):
        answer = refused(alice, f"/channels/{channel}/ws", since=bad).response
        assert json.loads(answer.body or b"")["error"] == "validation_error"


def test_three_ways_to_show_the_token(chat: Chat, alice: User, channel: str) -> None:
    url = f"ws{chat.base_url[4:]}/channels/{channel}/ws"
    options = {"compression": None, "proxy": None}
    with connect(f"{url}?access_token={alice.token}", **options) as stream:
        assert stream.subprotocol is None
    with connect(url, subprotocols=["openguild.v1", f"bearer.{alice.token}"], **options) as stream:
        assert stream.subprotocol == "openguild.v1"
        assert alice.token not in str(stream.response.headers)
    with connect(f"{url}?access_token={alice.token}", additional_headers={"authorization": "Bearer x"}, **options):
        pass
    for query, headers in (("", {}), ("?access_token=x", {}), ("", {"authorization": "Bearer x"})):
        with pytest.raises(InvalidStatus) as status:
            connect(url + query, additional_headers=headers, **options)
        assert status.value.response.status_code == 401


def test_frames_have_the_documented_shape(alice: User, channel: str) -> None:
    with alice.stream(channel, client_id="4c5b6f0e-8a55-4f2e-9d0c-0d4f2a4cf3f0") as stream:
        alice.say(channel, "x")
        (frame,) = receive(stream, 1)
    assert frame.keys() == {"sequence", "channel_id", "event"}
    assert frame["event"].keys() == {
        "auth_events", "content", "event_id", "event_type", "origin_server", "origin_ts", "prev_events", "room_id",
        "schema_version", "sender", "signatures",
    }  # fmt: skip
    assert frame["event"]["room_id"] == channel


def test_client_messages_are_ignored(alice: User, channel: str) -> None:
    with alice.stream(channel) as stream:
        for message in ('{"type":"ping","ts":1}', "not json", b"binary", "x" * 65_000):
            stream.send(message)
        stream.ping().wait(10)
        alice.say(channel, "still here")
        assert texts(receive(stream, 1)) == ["still here"]


def test_a_message_over_the_limit_closes_with_1009(alice: User, channel: str) -> None:
    with alice.stream(channel) as stream:
        stream.send("x" * 65_537)
        assert close_of(stream)[0] == 1009


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x01x", 1002),  # not masked
        (b"\xc1\x80\0\0\0\0", 1002),  # reserved bit
        (b"\x83\x80\0\0\0\0", 1002),  # unknown opcode
        (b"\x81\x82\0\0\0\0\xc3\x28", 1007),  # not UTF-8
        (b"\x09\x80\0\0\0\0", 1002),  # fragmented ping
        (b"\x80\x80\0\0\0\0", 1002),  # continuation of nothing
        (b"\x81\xff\x00\x00\x00\x00\x00\x01\x00\x01\0\0\0\0", 1009),  # the payload is announced but not sent
        (b"\x88\x82\0\0\0\0\x03\xe8", 1000),
        (b"\x88\x80\0\0\0\0", None),
        (b"\x88\x82\0\0\0\0\x03\xed", 1002),  # 1005 must not be sent
    ],
)
def test_close_codes_of_broken_frames(
    frame: bytes, code: int | None, alice: User, channel: str, server: ServerProcess
) -> None:
    with RawClient(server.port) as client:
        token = f"Authorization: Bearer {alice.token}\r\n\r\n".encode()
        client.send(f"GET /channels/{channel}/ws HTTP/1.1\r\n".encode() + UPGRADE + token)
        assert client.answer().status == 101
        client.send(frame)
        reply = client.read_to_end()
    assert reply[0] == 0x88
    assert (int.from_bytes(reply[2:4], "big") if len(reply) > 2 else None) == code


def test_bytes_behind_the_handshake_belong_to_the_socket(alice: User, channel: str, server: ServerProcess) -> None:
    with RawClient(server.port) as client:
        token = f"Authorization: Bearer {alice.token}\r\n\r\n".encode()
        client.send(f"GET /channels/{channel}/ws HTTP/1.1\r\n".encode() + UPGRADE + token + b"\x89\x84\0\0\0\0ping")
        assert client.answer().status == 101
        assert client.read(6) == b"\x8a\x04ping"


@pytest.mark.parametrize("how", ["kick", "leave"])
def test_losing_membership_closes_with_4403(how: str, chat: Chat, alice: User) -> None:
    """Permissions of open streams are checked again when they change (PROTOCOL 8.8)."""
    guild = alice.guild()
    channel, bob = alice.channel(guild), chat.user()
    bob.join(alice.invite(guild))
    with bob.stream(channel) as stream, bob.notifications() as notifications:
        if how == "kick":
            alice.request("DELETE", f"/guilds/{guild}/members/{bob.user_id}")
        else:
            bob.request("DELETE", f"/guilds/{guild}/members/@me")
        assert close_of(stream)[0] == 4403
        alice.say(channel, "secret")
        own = bob.channel(bob.guild())
        assert json.loads(notifications.recv(timeout=PATIENCE_SECS))["event"]["channel_id"] == own


def test_nothing_follows_a_close_frame(alice: User, channel: str, server: ServerProcess) -> None:
    """RFC 6455 5.5.1: the client closes in the middle of a stream of messages."""
    other = alice.chat.login(alice.name, "other")
    with handshake(server, other, channel) as sock, ThreadPoolExecutor(4) as posters:
        posting = [posters.submit(alice.say, channel, "x" * 500) for _ in range(120)]
        wait_until(posting[30].done)
        assert alice.request("DELETE", "/sessions/devices/other").status_code == 204
        received = read_to_close(sock)
        for post in posting:
            post.result()
    sequences, code, _ = frames(received)
    assert code == 4401
    assert sequences == list(range(1, len(sequences) + 1))


def test_nothing_follows_a_close_frame_in_a_replay(alice: User, channel: str, server: ServerProcess) -> None:
    """The client closes during a replay that it does not read."""
    with ThreadPoolExecutor(8) as posters:
        list(posters.map(lambda _: alice.say(channel, "\U0001f600" * 4_000), range(450)))
    other = alice.chat.login(alice.name, "other")
    with handshake(server, other, f"{channel}", receive_bytes=4_096, query="?since=0") as sock:
        sock.recv(1_000, socket.MSG_PEEK)
        assert alice.request("DELETE", "/sessions/devices/other").status_code == 204
        received = read_to_close(sock)
    sequences, code, _ = frames(received)
    assert code == 4401
    assert 0 < len(sequences) < 450
    assert sequences == list(range(1, len(sequences) + 1))


@pytest.mark.parametrize("what", ["channel", "guild"])
def test_deleting_closes_with_4404(what: str, alice: User) -> None:
    guild = alice.guild()
    channel = alice.channel(guild)
    with alice.stream(channel) as stream:
        path = f"/channels/{channel}" if what == "channel" else f"/guilds/{guild}"
        assert alice.request("DELETE", path).status_code == 204
        assert close_of(stream)[0] == 4404


def test_new_members_are_notified_from_then_on(chat: Chat, alice: User) -> None:
    bob = chat.user()
    guild = alice.guild()
    channel = alice.channel(guild)
    with bob.notifications() as stream:
        bob.join(alice.invite(guild))

        def heard() -> dict[str, object] | None:
            alice.say(channel, "hello")
            try:
                return told(stream, secs=0.2)
            except TimeoutError:
                return None

        frame = wait_until(heard)
        assert (frame["kind"], frame["channel_id"]) == ("channel_message", channel)


def test_the_author_is_notified_too(alice: User, channel: str) -> None:
    with alice.notifications() as stream:
        alice.say(channel, "x")
        assert told(stream).keys() == {"kind", "channel_id", "sequence", "event"}


# --- a server with small limits --------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory: Path = tmp_path_factory.mktemp("small")
    limits = {
        "WEBSOCKET__MAX_CONNECTIONS": 5, "WEBSOCKET__MAX_CONNECTIONS_PER_USER": 3, "WEBSOCKET__PING_INTERVAL_SECS": 0.3,
        "WEBSOCKET__MAX_MESSAGE_BYTES": 1_024, "MESSAGING__QUEUE_CAPACITY": 8, "WEBSOCKET__WRITE_TIMEOUT_SECS": 2,
        "MESSAGING__REPLAY_WINDOW": 2,
    }  # fmt: skip
    with ServerProcess(directory, "--storage", "memory", **limits).start() as server:
        yield server


@pytest.fixture
def anna(small: ServerProcess) -> User:
    """Return a user, once no socket of an earlier test is open."""
    wait_until(lambda: sockets_open(small) == 0)
    return small.chat().user()


def sockets_open(server: ServerProcess) -> float:
    return server.metric("openguild_websocket_connections")


def test_limits_per_user_and_in_total(small: ServerProcess, anna: User) -> None:
    refusals = small.metric("openguild_messaging_rejections_total", reason="websocket_limit")
    channel = anna.channel(anna.guild())
    other = small.chat().user()
    with ExitStack() as streams:
        for stream in (anna.stream(channel), anna.notifications(), anna.stream(channel)):
            streams.enter_context(stream)
        answer = refused(anna, "/notifications/ws").response
        assert answer.status_code == 429
        assert json.loads(answer.body or b"")["message"] == "connection limit reached"
        assert int(answer.headers["retry-after"]) > 0
        for _ in range(2):
            streams.enter_context(other.notifications())
        assert refused(other, "/notifications/ws").response.status_code == 429
        assert sockets_open(small) == 5
        assert small.metric("openguild_messaging_rejections_total", reason="websocket_limit") == refusals + 2
    wait_until(lambda: sockets_open(small) == 0)
    with anna.stream(channel):  # the closed streams count no more
        assert sockets_open(small) == 1


def test_the_replay_window_is_a_setting(anna: User) -> None:
    channel = anna.channel(anna.guild())
    for number in range(5):
        anna.say(channel, str(number))
    with anna.stream(channel) as stream:
        assert texts(receive(stream, 2)) == ["3", "4"]


@contextmanager
def handshake(
    server: ServerProcess, user: User, channel: str, *, receive_bytes: int = 65_536, query: str = ""
) -> Iterator[socket.socket]:
    """Return a socket after its upgrade, which reads and answers only when the test does."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.settimeout(PATIENCE_SECS)
        sock.connect(("127.0.0.1", server.port))
        token = f"Authorization: Bearer {user.token}\r\n\r\n".encode()
        sock.sendall(f"GET /channels/{channel}/ws{query} HTTP/1.1\r\n".encode() + UPGRADE + token)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = sock.recv(1)
            assert data, (head, "closed")
            head += data
        assert head.startswith(b"HTTP/1.1 101"), head
        yield sock


def test_a_peer_that_answers_no_ping_is_dropped(small: ServerProcess, anna: User) -> None:
    channel = anna.channel(anna.guild())
    with handshake(small, anna, channel) as sock:
        received = b""
        while data := sock.recv(1024):
            received += data
    assert received.startswith(b"\x89\x00\x89\x00\x88")  # two pings, then the close


def test_a_peer_that_answers_stays(small: ServerProcess, anna: User) -> None:
    channel = anna.channel(anna.guild())
    with handshake(small, anna, channel) as sock:
        for _ in range(5):
            assert sock.recv(2) == b"\x89\x00"
            sock.sendall(b"\x8a\x80\0\0\0\0")


def test_a_slow_reader_is_closed_with_1008_and_its_resume_point(small: ServerProcess, anna: User) -> None:
    """The ring overruns the reader; the events before and after its resume point leave no gap."""
    channel = anna.channel(anna.guild())
    reader = small.chat().login(anna.name, "reader")
    before = small.metric("openguild_websocket_lag_closes_total")
    text = "\U0001f600" * 4_000
    with handshake(small, reader, channel, receive_bytes=4_096) as sock, ThreadPoolExecutor(4) as posters:

        def overrun() -> bool:
            list(posters.map(lambda _: anna.say(channel, text), range(40)))
            return small.metric("openguild_websocket_lag_closes_total") > before

        wait_until(overrun, secs=30)
        assert small.metric("openguild_messaging_events_total", outcome="dropped") > 8
        received = read_to_close(sock)
    sequences, code, reason = frames(received)
    assert code == 1008
    assert sequences == list(range(1, len(sequences) + 1))
    assert reason.endswith(f"messages; resume with since={len(sequences)}")
    assert reason.startswith("lagged by ")


def read_to_close(sock: socket.socket) -> bytes:
    """Return everything up to the end, and answer the close frame, so that the server need not wait."""
    received = bytearray()
    while data := sock.recv(65_536):
        received += data
        if received.rfind(b"\x88", max(0, len(received) - 127)) >= 0:
            with suppress(OSError):
                sock.sendall(b"\x88\x80\0\0\0\0")
    return bytes(received)


def frames(data: bytes) -> tuple[list[int], int, str]:
    """Return the sequences of the text frames, and the code and reason of the final close frame."""
    sequences = []
    while data:
        first, size, offset = data[0], data[1], 2
        if size == 126:
            size, offset = int.from_bytes(data[2:4], "big"), 4
        payload, data = data[offset : offset + size], data[offset + size :]
        if first == 0x88:
            assert not data, "nothing follows the close frame"
            return sequences, int.from_bytes(payload[:2], "big"), payload[2:].decode()
        if first == 0x81:
            sequences.append(json.loads(payload)["sequence"])
    raise AssertionError("the connection ended without a close frame")


def test_a_peer_that_never_reads_is_dropped_by_the_write_deadline(small: ServerProcess, anna: User) -> None:
    """The client sends pings and does not read the pongs, which are bounded; it is dropped after the deadline."""
    channel = anna.channel(anna.guild())
    with handshake(small, anna, channel, receive_bytes=4_096) as sock:
        ping = b"\x89\xfd\0\0\0\0" + b"p" * 125
        with pytest.raises(OSError):
            while True:
                sock.sendall(ping * 400)
    wait_until(lambda: sockets_open(small) == 0)

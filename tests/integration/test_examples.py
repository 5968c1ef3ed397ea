"""The programs in docs/examples run as documented, and each stays under 100 lines."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.chat import PASSWORD, Chat
from tests.support.raw import HOST, ask
from tests.support.server import ROOT, ServerProcess
from tests.support.waiting import PATIENCE_SECS, wait_until

EXAMPLES = ROOT / "docs/examples"
HANDSHAKE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@contextmanager
def running(name: str) -> Iterator[int]:
    """Start an example; yield its port."""
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), "0"], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline().rpartition(":")[2])
        finally:
            process.kill()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_each_is_short_and_shown_in_the_guide(path: Path) -> None:
    assert path.read_text().count("\n") < 100
    assert path.name in "".join(guide.read_text() for guide in (ROOT / "docs").rglob("*.md"))


def test_threads() -> None:
    with running("threads_server.py") as port:
        assert httpx.get(f"http://127.0.0.1:{port}/tea", trust_env=False, verify=False).text == "you asked for /tea\n"
        with connect(f"ws://127.0.0.1:{port}/echo", compression=None, proxy=None) as stream:
            for text in ("one", "zwölf", "x" * 60_000):
                stream.send(text)
                assert stream.recv(timeout=PATIENCE_SECS) == text
        with pytest.raises(InvalidStatus) as refused, connect(f"ws://127.0.0.1:{port}/none", proxy=None):
            pass
        assert refused.value.response.status_code == 404
        assert ask(port, b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n").status == 400


def test_select() -> None:
    with running("select_server.py") as port, socket.socket() as silent:
        assert httpx.get(f"http://127.0.0.1:{port}/tea", trust_env=False, verify=False).text == "you asked for /tea\n"
        silent.connect(("127.0.0.1", port))
        with (
            connect(f"ws://127.0.0.1:{port}/", compression=None, proxy=None) as one,
            connect(f"ws://127.0.0.1:{port}/", compression=None, proxy=None) as other,
        ):
            for stream, text in ((one, "one"), (other, "zwölf"), (one, "x" * 60_000)):
                stream.send(text)
                assert stream.recv(timeout=10) == text
        assert ask(port, b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n").status == 400


def test_select_keeps_what_a_peer_does_not_take_yet() -> None:
    """There are more echoes than the narrow socket holds, and fewer than the outbox; the client reads after sending all."""
    with running("select_server.py") as port, socket.socket() as narrow:
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        narrow.connect(("127.0.0.1", port))
        texts = [f"{number:02}" * 30_000 for number in range(15)]
        with connect(f"ws://127.0.0.1:{port}/", sock=narrow, compression=None, proxy=None, max_queue=1) as stream:
            for text in texts:
                stream.send(text)
            assert [stream.recv(timeout=10) for _ in texts] == texts


def test_select_reads_no_request_on_of_a_peer_that_takes_no_response() -> None:
    asked, line = b"GET /%b HTTP/1.1\r\n" % (b"x" * 2_000) + HOST + b"\r\n", b"HTTP/1.1 200 OK\r\n"
    many = memoryview(asked * 12_000)  # beyond what the kernel keeps of requests and of responses
    with running("select_server.py") as port, socket.socket() as narrow:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            narrow.setsockopt(socket.SOL_SOCKET, option, 4_096)
        narrow.connect(("127.0.0.1", port))
        narrow.settimeout(1.0)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < len(many):
                sent += narrow.send(many[sent : sent + 65_536])
        narrow.settimeout(PATIENCE_SECS)
        left, tail = sent // len(asked), b""
        while left > 0:
            received = tail + narrow.recv(65_536)
            assert received != tail, "the server has ended the connection"
            left -= received.count(line)
            tail = received[1 - len(line) :]


def test_trio() -> None:
    with running("trio_server.py") as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/tea", trust_env=False, verify=False)
        assert answer.json() == {"path": "/tea", "request_id": answer.headers["x-request-id"]}
        with connect(f"ws://127.0.0.1:{port}/", compression=None, proxy=None) as stream:
            stream.send("shout")
            assert stream.recv(timeout=PATIENCE_SECS) == "SHOUT"


def test_fan_out() -> None:
    with running("fanout_server.py") as port, socket.socket() as slow:
        assert ask(port, b"GET / HTTP/1.1\r\n" + HOST + b"\r\n").status == 404
        url = f"ws://127.0.0.1:{port}/"
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        slow.connect(("127.0.0.1", port))
        slow.sendall(b"GET / HTTP/1.1\r\n" + HOST + HANDSHAKE)
        assert slow.recv(12) == b"HTTP/1.1 101"
        with connect(url, compression=None, proxy=None) as left, connect(url, compression=None, proxy=None) as right:
            for number in range(280):
                text = f"{number} " + "x" * 20_000
                left.send(text)
                assert left.recv(timeout=PATIENCE_SECS) == right.recv(timeout=PATIENCE_SECS) == text
            slow.settimeout(PATIENCE_SECS)
            got = b""
            while b"resume with since=" not in got:
                chunk = slow.recv(65_536)
                assert chunk, "it ended without a close frame"
                got = got[-100:] + chunk
            right.close()
            left.send("still here")
            assert left.recv(timeout=PATIENCE_SECS) == "still here"


def test_an_operation_by_hand() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "operation_by_hand.py")],
        capture_output=True, text=True, check=True, timeout=60, env=ENVIRONMENT,
    )  # fmt: skip
    *steps, last = done.stdout.splitlines()
    assert steps == [f"it asks for {name}" for name in ("FindSession", "AppendEvent")]
    status, _, body = last.partition(" ")
    assert (status, json.loads(body)["sequence"]) == ("200", 42)


def test_the_client_chats(server: ServerProcess) -> None:
    for _ in range(2):  # existing accounts do not stop it
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / "client_chat.py"), server.base_url],
            capture_output=True, text=True, check=True, timeout=60, env=ENVIRONMENT,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == "bob reads 3 bye"


def test_the_bot_answers_once_also_what_it_missed(server: ServerProcess, chat: Chat, tmp_path: Path) -> None:
    owner, bot = chat.user(), chat.user()
    guild = owner.guild()
    channel = owner.channel(guild)
    link = f"http://127.0.0.1:8081/#invite={owner.invite(guild)}"
    command = [sys.executable, str(EXAMPLES / "bot.py"), server.base_url, bot.name, PASSWORD, link]

    def answered() -> list[str]:
        """Return the messages that the bot has answered."""
        lines = owner.ok(owner.get(f"/channels/{channel}/messages"))
        return [line["reply_to"] for line in lines if line["content"] == f"pong, {owner.name}"]

    def answers(ping: str | None) -> bool:
        """Return whether `ping` is answered; with None, whether one that is posted now is."""
        if ping is None:
            owner.say(channel, "ping")
        return ping in answered() or (ping is None and answered() != [])

    missed = None
    for end in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        with subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT) as process:
            try:
                wait_until(partial(answers, missed))  # and the bot is killed before it saves its position
            finally:
                process.send_signal(end)
        assert process.returncode == (-end if end is signal.SIGKILL else 0)
        missed = owner.say(channel, "ping")["event_id"]
        command = command[:6]
    assert len(set(answered())) == len(answered())


def test_the_bot_on_a_socket_answers_also_in_channels_made_meanwhile(server: ServerProcess, chat: Chat) -> None:
    owner, bot = chat.user(), chat.user()
    guild = owner.guild()
    channel = owner.channel(guild)
    bot.join(owner.invite(guild))
    command = [
        sys.executable,
        str(EXAMPLES / "socket_bot.py"),
        server.base_url.removeprefix("http://"),
        bot.name,
        PASSWORD,
    ]

    def answers(channel: str) -> bool:
        owner.say(channel, "ping")
        return any(
            line["content"] == "pong" and line["reply_to"] is not None
            for line in owner.ok(owner.get(f"/channels/{channel}/messages"))
        )

    with subprocess.Popen(command, env=ENVIRONMENT) as process:
        try:
            wait_until(partial(answers, channel))
            wait_until(partial(answers, owner.channel(guild)))
        finally:
            process.kill()


def test_the_bot_on_a_socket_outlives_an_outage_and_its_tokens(new_database: Callable[[], str], tmp_path: Path) -> None:
    """The bot starts before its server, and each token expires after two seconds."""
    server = ServerProcess(
        tmp_path,
        DATABASE_URL=new_database(),
        SESSION__ACCESS_TTL_SECS=2,
        SESSION__MAX_LOGINS_PER_ACCOUNT_PER_WINDOW=1_000,
        SESSION__MAX_REFRESHES_PER_ACCOUNT_PER_WINDOW=1_000,
    )
    with server.start():
        owner, bot = (server.chat().user() for _ in range(2))
        guild = owner.guild()
        channel = owner.channel(guild)
        bot.join(owner.invite(guild))
    command = [sys.executable, str(EXAMPLES / "socket_bot.py"), f"127.0.0.1:{server.port}", bot.name, PASSWORD]
    with subprocess.Popen(command, env=ENVIRONMENT) as process:
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)  # it retries until the server is up
            with server.start():

                def answers(pings: list[str]) -> bool:
                    again = server.chat().login(owner.name)  # with a token as short
                    pings.append(again.say(channel, "ping")["event_id"])
                    lines = again.ok(again.get(f"/channels/{channel}/messages"))
                    return any(line["content"] == "pong" and line["reply_to"] in pings for line in lines)

                wait_until(partial(answers, []))
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(4)  # the lifetimes of two tokens
                wait_until(partial(answers, []))
        finally:
            process.kill()


def test_the_guides_show_the_examples() -> None:
    assert (EXAMPLES / "fanout_server.py").read_text() in (ROOT / "docs/fan-out.md").read_text()
    assert (EXAMPLES / "bot.py").read_text() in (ROOT / "docs/client.md").read_text()

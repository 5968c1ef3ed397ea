"""The admin socket: what an operator sees and changes while it serves, and who else cannot."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from openguild_runtime.embedded import EmbeddedNats
from tests.support.chat import User
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    with TemporaryDirectory(prefix="og-") as directory:  # short enough for a socket
        yield Path(directory) / "admin.sock"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, module_database: str, path: Path) -> Iterator[ServerProcess]:
    """Shared: each test puts back what it changes. A reader who stopped stays until the test has looked at him."""
    settings = {"DATABASE_URL": module_database, "ADMIN_SOCKET": str(path), "WEBSOCKET__WRITE_TIMEOUT_SECS": 120}
    with ServerProcess(tmp_path_factory.mktemp("admin"), **settings).start() as process:
        yield process


def admin(server: ServerProcess, *arguments: str) -> Any:
    done = server.run_command("admin", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def alice(server: ServerProcess) -> User:
    return server.chat().user()


def test_who_is_slow_and_where(server: ServerProcess, alice: User) -> None:
    channel = alice.channel(alice.guild())
    assert admin(server, "channels") == {"channels": []}
    with alice.stream(channel), alice.notifications():
        assert admin(server, "sessions", "--user", alice.user_id)["total"] == 2
        for number in range(1_000):
            alice.say(channel, "y" * 4_000)
            if number % 25 == 0 and server.metric("openguild_websocket_queue_depth_max") > 60:
                break
        (found,) = [line for line in admin(server, "channels")["channels"] if line["channel_id"] == channel]
        assert found["subscribers"] == 1
        assert (found["slowest_user"], found["slowest_address"]) == (alice.user_id, "127.0.0.1")
        assert 20 < found["behind"] <= found["depth"]
        every = admin(server, "sessions")["sessions"]  # the notifications carry the same events and wait as well
        assert {line["channel_id"] for line in every} == {channel, None}
        assert every[0]["behind"] >= every[1]["behind"] > 20
        assert admin(server, "sessions", "--limit", "1") == {"sessions": every[:1], "total": 2}


def test_settings_change_at_once_and_are_audited(server: ServerProcess, alice: User) -> None:
    channel, before = alice.channel(alice.guild()), len(server.records())
    for number in range(5):
        alice.say(channel, str(number))
    assert admin(server, "show")["settings"]["messaging.replay_window"] == 50
    assert admin(server, "replay-window", "2") == {"changed": "messaging.replay_window", "value": 2}
    with alice.stream(channel) as stream:
        assert [json.loads(stream.recv(timeout=5))["sequence"] for _ in range(2)] == [4, 5]
    admin(server, "set", "messaging.max_messages_per_user_per_window", "5")
    assert alice.post(f"/channels/{channel}/messages", {"content": "x"}).status_code == 429
    admin(server, "log", "info,openguild=debug")
    assert admin(server, "close", "--user", alice.user_id) == {"closed": 0}
    admin(server, "log", "info")
    admin(server, "set", "messaging.max_messages_per_user_per_window", "1000000")
    admin(server, "replay-window", "50")
    audited = [
        record
        for record in server.records()[before:]
        if record["target"] == "openguild.audit" and "error" not in record["answer"]
    ]
    assert [record["request"]["command"] for record in audited] == ["set", "set", "log", "close", "log", "set", "set"]
    assert all(record["uid"] == os.getuid() for record in audited)


def test_no_log_filter_silences_the_audit_log(server: ServerProcess) -> None:
    before = len(server.records())
    for wanted in ("error", "off", "info"):
        admin(server, "log", wanted)
        admin(server, "replay-window", "50")
        assert admin(server, "show")["log"] == wanted
    audited = [record["request"] for record in server.records()[before:] if record["target"] == "openguild.audit"]
    assert [request.get("filter", "") for request in audited] == ["error", "", "off", "", "info", ""]


def test_the_log_filter_reaches_loggers_in_use(server: ServerProcess, alice: User) -> None:
    def ended() -> int:
        """Debug records of the logger that writes the access log."""
        with alice.notifications():
            assert admin(server, "sessions")["total"] == 1
        wait_until(lambda: admin(server, "sessions")["total"] == 0, what="the stream's end")
        return sum((record["level"], record["message"]) == ("DEBUG", "stream ended") for record in server.records())

    assert ended() == 0
    admin(server, "log", "info,openguild=debug")
    assert ended() == 1
    admin(server, "log", "info")
    assert ended() == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("set", "messaging.replay_window", "-1"), "must be at least 0"),
        (("set", "messaging.replay_window", "many"), "is not a whole number"),
        (("set", "session.signing_key", "x"), "cannot be changed while serving"),
        (("set", "port", "1"), "cannot be changed while serving"),
        (("log", "loud"), "is not a level"),
        (("channels", "--limit", "0"), "expected 1 to 1000"),
    ],
)
def test_a_bad_request_changes_nothing(server: ServerProcess, arguments: tuple[str, ...], said: str) -> None:
    before = admin(server, "show")
    done = server.run_command("admin", *arguments)
    assert done.returncode == 1
    assert said in json.loads(done.stdout)["error"]
    assert admin(server, "show") == before


def test_only_its_user_may_open_it_and_noise_is_survived(server: ServerProcess, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for noise in (b"", b"\n", b"{}\n", b'{"command": "reboot"}\n', b"[1]\n", b"x" * 10_000, b"[" * 4_000 + b"\n"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(noise)
            client.shutdown(socket.SHUT_WR)
            answered = client.recv(4_096)
            assert not answered or "expected a command" in json.loads(answered)["error"]
    for request in ({"command": "sessions", "user": []}, {"command": []}, {"command": "log", "filter": "\ud800"}):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(json.dumps(request).encode() + b"\n")
            assert "error" in json.loads(client.recv(4_096))
    assert admin(server, "sessions")["total"] == 0


def test_drain_ends_it_orderly(tmp_path: Path, database_url: str, path: Path) -> None:
    own = path.with_name("other.sock")
    with ServerProcess(tmp_path, DATABASE_URL=database_url, ADMIN_SOCKET=str(own)).start() as server:
        assert admin(server, "drain") == {"draining": True}
        assert server.process is not None
        assert server.process.wait(15) == 0
        assert not own.exists()
        gone = server.run_command("admin", "show")
        assert (gone.returncode, "no server listens" in gone.stderr) == (1, True)


def test_to_ask_for_a_drain_again_does_not_cut_it(tmp_path: Path, database_url: str, path: Path) -> None:
    """A second SIGTERM would: the streams would not be told."""
    own = path.with_name("twice.sock")
    settings = {"DATABASE_URL": database_url, "ADMIN_SOCKET": str(own), "DRAIN__DELAY_SECS": 3}
    with ServerProcess(tmp_path, **settings).start() as server:
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as client:  # a command takes its time to start
                client.connect(str(own))
                client.sendall(b'{"command": "drain"}\n')
                assert json.loads(client.recv(4_096)) == {"draining": True}
        assert (server.status("/ready"), server.status("/live")) == (503, 200), "until the listener closes"
        assert server.process is not None
        assert server.process.wait(20) == 0
        messages = [record["message"] for record in server.records()]
        assert (messages.count("shutdown signal received"), messages.count("drained")) == (1, 1)


def test_every_worker_is_asked(
    tmp_path: Path, path: Path, new_database: Callable[[], str], nats_server: EmbeddedNats
) -> None:
    path = path.with_name("pair.sock")
    settings = {"DATABASE_URL": new_database(), "NATS__URL": nats_server.url, "ADMIN_SOCKET": str(path)}
    with ServerProcess(tmp_path, "--workers", "2", **settings).start() as pair:
        wait_until(lambda: len(list(path.parent.glob("pair.sock.*"))) == 2, what="both sockets")
        done = pair.run_command("admin", "replay-window", "7")
        answers = [json.loads(text + "}") for text in done.stdout.split("}\n") if text]
        assert [(answer["worker"], answer["value"]) for answer in answers] == [(0, 7), (1, 7)]
        assert pair.stop() == 0

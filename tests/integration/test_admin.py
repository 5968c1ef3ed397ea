"""The admin socket: its commands while the server runs, and who may use it."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from openguild_proto.canonical.keys import fingerprint, parse_seed
from openguild_proto.gateway.close_codes import GatewayClose
from openguild_runtime.embedded import EmbeddedNats
from tests.support.chat import PASSWORD, User
from tests.support.server import SIGNING_KEY, ServerProcess
from tests.support.waiting import PATIENCE_SECS, wait_until


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    with TemporaryDirectory(prefix="og-") as directory:  # a short path: those of sockets are limited
        yield Path(directory) / "admin.sock"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, module_database: str, path: Path) -> Iterator[ServerProcess]:
    """Shared: each test undoes its changes. The stalled reader stays until its test has checked it."""
    settings = {"DATABASE_URL": module_database, "ADMIN_SOCKET": str(path), "WEBSOCKET__WRITE_TIMEOUT_SECS": 120}
    with ServerProcess(tmp_path_factory.mktemp("admin"), **settings).start() as process:
        yield process


def admin(server: ServerProcess, *arguments: str, status: int = 0) -> Any:
    done = server.run_command("admin", *arguments)
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def alice(server: ServerProcess) -> User:
    return server.chat().user()


def test_who_is_slow_and_where(server: ServerProcess, alice: User) -> None:
    channel = alice.channel(alice.guild())
    assert admin(server, "channels")["channels"] == []
    with alice.stream(channel), alice.notifications():
        assert admin(server, "sessions", "--user", alice.user_id) == admin(server, "sessions", "--user", alice.name)
        assert admin(server, "sessions", "--user", alice.name)["total"] == 2
        for number in range(1_000):
            alice.say(channel, "y" * 4_000)
            if number % 25 == 0 and server.metric("openguild_websocket_queue_depth_max") > 60:
                break
        (found,) = [line for line in admin(server, "channels")["channels"] if line["channel_id"] == channel]
        assert found["subscribers"] == 1
        assert (found["slowest_user"], found["slowest_username"]) == (alice.user_id, alice.name)
        assert found["slowest_address"] == "127.0.0.1"
        assert 20 < found["behind"] <= found["depth"]
        every = admin(server, "sessions")["sessions"]  # the user's notifications carry the same events
        assert {line["channel_id"] for line in every} == {channel, None}
        assert every[0]["behind"] >= every[1]["behind"] > 20
        assert admin(server, "sessions", "--limit", "1") == {"sessions": every[:1], "total": 2}


def test_gateway_sockets_are_seen_and_closed(server: ServerProcess, alice: User) -> None:
    channel = alice.channel(alice.guild())
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)  # so that it fills soon
    narrow.connect(("127.0.0.1", int(server.base_url.rpartition(":")[2])))
    url = server.base_url.replace("http", "ws") + "/gateway"
    with connect(url, sock=narrow, proxy=None, max_queue=1) as client:
        client.send(json.dumps({"type": "auth", "token": alice.token}))
        client.send(json.dumps({"type": "sub", "ref": 1, "logs": [{"log": f"channel:{channel}"}]}))
        wait_until(lambda: server.metric("openguild_gateway_subscriptions") == 1)
        assert server.metric("openguild_gateway_connections") == 1
        for number in range(1_000):
            alice.say(channel, "y" * 4_000)
            if number % 25 == 0 and server.metric("openguild_gateway_catching_up") == 1:
                break
        (line,) = admin(server, "sessions", "--user", alice.user_id)["sessions"]
        assert (line["channel_id"], line["logs"], line["address"]) == (None, 1, "127.0.0.1")
        assert line["behind"] > 20
        alice.say(channel, "to the ring")
        assert admin(server, "close", "--user", alice.user_id) == {"closed": 1}
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                client.recv(timeout=PATIENCE_SECS)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == GatewayClose.CLOSED_BY_OPERATOR
    wait_until(lambda: server.metric("openguild_gateway_subscriptions") == 0)


def test_top_refreshes_in_a_terminal_and_gives_it_back(server: ServerProcess, alice: User) -> None:
    channel = alice.channel(alice.guild())
    with alice.stream(channel), server.in_terminal("admin", "top", "--interval", "0.2") as terminal:
        first = terminal.read_until("q: quit")
        assert re.search(r"OpenGuild \S+ · ready · up ", first)
        assert re.search(r"BUSIEST USER.*?user-\S+ +\d", first, re.DOTALL), (
            "by name; who else was busy may precede alice"
        )
        alice.say(channel, "hello")
        following = terminal.read_until("requests 0/s")
        assert "streams 1" in following + terminal.read_until("q: quit")
        terminal.press("q")
        assert terminal.wait() == 0
        assert terminal.screen.endswith("\x1b[?1049l")
        assert terminal.is_as_before
    with server.in_terminal("admin", "top") as terminal:
        terminal.read_until("q: quit")
        terminal.press("\x03")
        assert terminal.wait() == 0
        assert terminal.is_as_before


def test_top_without_a_terminal_prints_once(server: ServerProcess, alice: User) -> None:
    alice.guild()
    printed = server.run_command("admin", "top")
    assert (printed.returncode, "\x1b" in printed.stdout) == (0, False)
    assert "BUSIEST USER" in printed.stdout
    assert "requests 0/s" in printed.stdout, "now, and not since the start"
    told = admin(server, "top", "--json")
    assert told["status"] == "ready"
    assert alice.name in [line["username"] for line in told["users"]]
    assert server.run_command("admin", "top", "--interval", "0").returncode == 2


def test_a_request_is_explained_by_its_id(server: ServerProcess, alice: User) -> None:
    refused = alice.post("/guilds", {"name": ""})
    request_id = refused.json()["request_id"]
    explained = server.run_command("admin", "why", request_id)
    assert explained.returncode == 0, explained.stderr
    for part in (f"user      {alice.name} ({alice.user_id})", "POST /guilds", "status    400"):
        assert part in explained.stdout
    assert "error     validation_error" in explained.stdout
    alice.chat.login(alice.name)
    alice.chat.login(alice.name)  # from the same device, so the earlier session has ended
    ended = alice.get("/guilds")
    assert ended.status_code == 401
    explained = server.run_command("admin", "why", ended.json()["request_id"])
    assert f"user      {alice.name} ({alice.user_id}), whose token was refused" in explained.stdout
    assert "cause     revoked" in explained.stdout
    malformed = httpx.get(server.base_url + "/version", headers={"expect": "x"})
    assert malformed.status_code == 417
    text = server.run_command("admin", "why", malformed.headers["x-request-id"]).stdout
    assert "detail    RFC 9110" in text
    assert "protocol violation by a peer" in text, "the log line"
    (told,) = admin(server, "why", request_id, "--json")
    assert told["requests"][0]["error"] == "validation_error"
    unknown = server.run_command("admin", "why", "nothing")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "nothing is remembered of request nothing" in unknown.stderr


def test_a_closed_reader_stays_listed_with_its_log_lines(server: ServerProcess, alice: User) -> None:
    channel = alice.channel(alice.guild())
    with alice.stream(channel) as stream:
        assert stream.response is not None
        request_id = stream.response.headers["x-request-id"]
        for number in range(2_000):
            alice.say(channel, "y" * 4_000)
            if number % 25 == 0 and server.metric("openguild_websocket_lag_closes_total") > 0:
                break
        (line,) = [line for line in admin(server, "channels")["closed"] if line["channel_id"] == channel]
        assert (line["username"], line["cause"], line["address"]) == (alice.name, "lagged", "127.0.0.1")
        assert line["missed"] > 200
        assert re.search(rf"{alice.name}\s+\d+ s\s+\d+\s+lagged", server.run_command("admin", "top").stdout)
        text = server.run_command("admin", "why", request_id).stdout
        assert "status    101" in text
        assert "stream lagged" in text


def test_settings_change_at_once_and_are_audited(server: ServerProcess, alice: User) -> None:
    channel, before = alice.channel(alice.guild()), len(server.records())
    for number in range(5):
        alice.say(channel, str(number))
    assert admin(server, "show")["settings"]["messaging.replay_window"] == 50
    name = fingerprint(parse_seed(SIGNING_KEY).public)
    assert admin(server, "show")["token_keys"] == {"signs": name, "accepts": [name]}
    assert admin(server, "replay-window", "2") == {"changed": "messaging.replay_window", "value": 2}
    with alice.stream(channel) as stream:
        assert [json.loads(stream.recv(timeout=PATIENCE_SECS))["sequence"] for _ in range(2)] == [4, 5]
    admin(server, "set", "messaging.max_messages_per_user_per_window", "5")
    assert alice.post(f"/channels/{channel}/messages", {"content": "x"}).status_code == 429
    admin(server, "log", "info,openguild=debug")
    assert admin(server, "close", "--user", alice.user_id, status=1) == {"closed": 0}
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
        """Return the number of debug records by the access log's logger."""
        with alice.notifications():
            assert admin(server, "sessions")["total"] == 1
        wait_until(lambda: admin(server, "sessions")["total"] == 0, what="the stream's end")
        admin(server, "replay-window", "50")  # its answer comes after all earlier records
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
        (("set", "messaging.replay_window", "many"), "is not an integer"),
        (
            ("set", "session.signing_key", "x"),
            "set it in the configuration, which applies at SIGHUP; `admin show` lists",
        ),
        (
            ("set", "port", "1"),
            "port cannot be set at run time: set it in the configuration, which applies at the next s",
        ),
        (("set", "drain.window_secs", "3"), "which applies at the next start; `admin show` lists what can be set"),
        (
            ("set", "messaging.replay_windo", "1"),
            "is not a key: did you mean messaging.replay_window? `admin show` lists",
        ),
        (("set", "x", "1"), "x is not a key: `admin show` lists what can be set"),
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
    """A second SIGTERM would shorten it, and the streams would get no notice."""
    own = path.with_name("twice.sock")
    settings = {"DATABASE_URL": database_url, "ADMIN_SOCKET": str(own), "DRAIN__DELAY_SECS": 3}
    with ServerProcess(tmp_path, **settings).start() as server:
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as client:  # not the command, which takes time to start
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


def test_an_attack_on_logins_is_seen_and_blocked(server: ServerProcess, alice: User) -> None:
    def login(secret: str) -> httpx.Response:
        body = {"identifier": alice.name, "secret": secret, "device": {"device_id": "d"}}
        return httpx.post(f"{server.base_url}/sessions/login", json=body)

    for _ in range(3):
        assert login("a wrong guess").status_code == 401
    top = admin(server, "top", "--json")
    assert top["failed_logins"] >= 3
    assert [line["address"] for line in top["login_addresses"]] == ["127.0.0.1"]
    assert {"user_id": alice.user_id, "username": alice.name, "failed": 3} in top["login_accounts"]
    assert admin(server, "block", "--address", "127.0.0.1", "--secs", "60")["blocked"]["address"] == "127.0.0.1"
    refused = login(PASSWORD)
    assert (refused.status_code, refused.json()["error"]) == (429, "login_rate_limit")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert [each["address"] for each in admin(server, "blocks")["blocks"]] == ["127.0.0.1"]
    assert admin(server, "unblock", "--address", "127.0.0.1")["was_blocked"]
    assert login(PASSWORD).status_code == 200
    assert admin(server, "block", "--account", alice.name)["blocked"]["account"] == alice.name.lower()
    assert login(PASSWORD).status_code == 200, "alice has a session at this address"
    assert admin(server, "unblock", "--account", alice.name)["was_blocked"]
    audited = [record["request"] for record in server.records() if record["target"] == "openguild.audit"][-4:]
    assert [(each["command"], each.get("secs")) for each in audited] == [
        ("block", 60), ("unblock", None), ("block", 3_600), ("unblock", None),
    ]  # fmt: skip
    for arguments, text in (
        (("--address", "10.0.0.0/8"), "address: is not an IP address"),
        (("--account", "nobody-at-all"), "account: there is no 'nobody-at-all'"),
        (("--address", "127.0.0.1", "--secs", "0"), "secs: expected 1 to 604800"),
    ):
        assert admin(server, "block", *arguments, status=1)["error"].startswith(text)

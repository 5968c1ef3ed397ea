"""SIGHUP: keys rotate without a restart, limits change, and a bad configuration has no effect (PROTOCOL 11.4.6)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from openguild_proto.canonical.keys import encode_unpadded, parse_seed
from openguild_runtime.embedded import EmbeddedNats
from tests.support.chat import User, closed_with
from tests.support.server import SIGNING_KEY, ServerProcess
from tests.support.waiting import wait_until

OTHER_KEY = encode_unpadded(bytes(range(32, 64)))
SUCCESSFUL = "openguild_config_last_reload_successful"
OLD_PUBLIC = encode_unpadded(parse_seed(SIGNING_KEY).public)

PROGRAM = """
import os, sys
from openguild_runtime.cli.entry_point import main
os.chdir({place!r})
sys.exit(main())
"""


class Rotating:
    """A server whose keys and limits are in files that the test rewrites."""

    def __init__(self, directory: Path, *flags: str, **settings: object) -> None:
        self.key, self.file = directory / "key", directory / "config" / "server.toml"
        self.file.parent.mkdir()
        self.key.write_text(SIGNING_KEY)
        self.file.write_text("")
        self.process = ServerProcess(
            directory, *flags, without=("SESSION__SIGNING_KEY", "MESSAGING__MAX_MESSAGES_PER_USER_PER_WINDOW"),
            SESSION__SIGNING_KEY_FILE=str(self.key), **settings,
        )  # fmt: skip

    def hang_up(self, said: str) -> None:
        """Send SIGHUP, and wait for its log line."""
        before = self.process.log_path.read_text().count(said)
        assert self.process.process is not None
        self.process.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.process.log_path.read_text().count(said) > before, what=f"{said!r} in the log")


def works(user: User) -> bool:
    return user.get("/users/me").status_code == 200


@pytest.fixture
def rotating(tmp_path: Path, database_url: str) -> Rotating:
    return Rotating(tmp_path, DATABASE_URL=database_url)


def test_keys_rotate_with_a_fallback_and_without(rotating: Rotating) -> None:
    with rotating.process.start() as server:
        chat = server.chat()
        old = chat.user("old")
        assert works(old)
        channel = old.channel(old.guild())
        with old.notifications() as stream, old.stream(channel) as other:
            rotating.key.write_text(OTHER_KEY)
            rotating.file.write_text(f'session.fallback_verifying_keys = ["{OLD_PUBLIC}"]\n')
            rotating.hang_up("configuration applied")
            new = chat.login("old", "second")
            assert works(old), "the old key still verifies"
            assert works(new)
            for kept in (stream, other):
                kept.ping().wait(5)  # the fallback key still verifies its token
            with new.notifications() as newer:
                rotating.file.write_text("")
                rotating.hang_up("configuration applied")
                assert not works(old), "its key has gone, and no cache remembers it"
                assert works(new)
                assert closed_with(stream) == closed_with(other) == 4401
                newer.ping().wait(5)
        text = rotating.process.log_path.read_text()
        assert SIGNING_KEY not in text
        assert OTHER_KEY not in text


def test_a_hangup_before_it_serves_ends_nothing(rotating: Rotating) -> None:
    with rotating.process.start(ready=False) as server:
        wait_until(lambda: "environment overrides" in server.log_path.read_text(), what="the start")
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)
        server.wait_ready()
        rotating.hang_up("configuration applied")


def test_without_its_working_directory_it_keeps_what_it_has(rotating: Rotating) -> None:
    """An upgrade may have replaced the directory."""
    place = rotating.key.with_name("place")
    place.mkdir()
    rotating.process.program = ("-c", PROGRAM.format(place=str(place)))
    with rotating.process.start() as server:
        place.rmdir()
        rotating.hang_up("the working directory was removed")
        assert server.status("/ready") == 200
        assert server.stop() == 0
    assert "Traceback" not in rotating.process.log_path.read_text()


def test_limits_change(rotating: Rotating) -> None:
    with rotating.process.start() as server:
        user = server.chat().user()
        channel = user.channel(user.guild())
        user.say(channel, "one")
        rotating.file.write_text("messaging.max_messages_per_user_per_window = 2\nhttp.idle_timeout_secs = 9\n")
        rotating.hang_up("configuration applied")
        user.say(channel, "two")
        assert user.post(f"/channels/{channel}/messages", {"content": "three"}).status_code == 429
        assert "some changes apply at the next start" in server.tail()


def test_a_bad_configuration_changes_nothing(rotating: Rotating) -> None:
    with rotating.process.start() as server:
        user = server.chat().user()
        assert server.metric(SUCCESSFUL) == 1
        for bad in ("messaging.no_such_key = 1\n", "messaging.replay_window = -1\n", "not toml"):
            rotating.file.write_text(bad)
            rotating.hang_up("the configuration was not applied")
            assert server.metric(SUCCESSFUL) == 0
        rotating.file.write_text("")
        rotating.hang_up("configuration applied")
        assert server.metric(SUCCESSFUL) == 1
        rotating.key.write_text("not a key")
        rotating.hang_up("the configuration was not applied")
        assert works(user)
        assert works(server.chat().user())


def test_another_database_waits_for_the_next_start(tmp_path: Path, database_url: str) -> None:
    url = tmp_path / "database-url"
    url.write_text(database_url)
    rotating = Rotating(tmp_path, DATABASE_URL_FILE=str(url))
    with rotating.process.start() as server:
        url.write_text(database_url.replace("@", "hunter2@"))
        rotating.hang_up("some changes apply at the next start")
        assert '"keys":["database_url"]' in server.log_path.read_text()
        assert "hunter2" not in server.log_path.read_text()
        assert works(server.chat().user())


def test_every_worker_gets_the_new_key(
    tmp_path: Path, new_database: Callable[[], str], nats_server: EmbeddedNats
) -> None:
    rotating = Rotating(tmp_path, "--workers", "2", DATABASE_URL=new_database(), NATS__URL=nats_server.url)
    with rotating.process.start() as server:
        wait_until(lambda: server.log_path.read_text().count('"message":"serving"') == 2, what="both workers")
        old = server.chat().user()
        rotating.key.write_text(OTHER_KEY)
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)
        said = "configuration applied"
        wait_until(lambda: server.log_path.read_text().count(said) == 2, what="both workers' word")
        for _ in range(20):
            fresh = User(server.chat(), "x", old.token, "", "")  # a new connection, which either worker may accept
            assert not works(fresh)
        assert works(server.chat().user())
        assert server.stop() == 0, server.tail()


def test_every_worker_shows_that_a_reload_failed(
    tmp_path: Path, new_database: Callable[[], str], nats_server: EmbeddedNats
) -> None:
    """So does a worker that starts afterwards."""
    rotating = Rotating(tmp_path, "--workers", "2", DATABASE_URL=new_database(), NATS__URL=nats_server.url)

    def shown() -> list[float]:
        return [server.metric(SUCCESSFUL, worker=str(number)) for number in range(2)]

    def workers_begun() -> int:
        return rotating.process.log_path.read_text().count('"message":"serving"')

    with rotating.process.start() as server:
        wait_until(lambda: (workers_begun(), shown()) == (2, [1, 1]), what="both workers")
        rotating.file.write_text("not toml")
        rotating.hang_up("the configuration was not applied")
        wait_until(lambda: shown() == [0, 0], what="both workers' word")
        assert server.process is not None
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        wait_until(lambda: workers_begun() == 3, what=server.tail)
        wait_until(lambda: [server.metric("openguild_worker_up", worker=str(n)) for n in range(2)] == [1, 1])
        wait_until(lambda: shown() == [0, 0], what="its word")
        rotating.file.write_text("")
        rotating.hang_up("configuration applied")
        wait_until(lambda: shown() == [1, 1], what="both workers' word")
        assert server.stop() == 0, server.tail()


def test_a_hangup_during_the_imports_ends_nothing(rotating: Rotating) -> None:
    server = rotating.process
    server.launched = False  # as an interpreter that imports the program
    with server.start(ready=False):
        assert server.process is not None
        caught = Path(f"/proc/{server.process.pid}/status")
        wait_until(lambda: _catches(caught.read_text(), signal.SIGHUP), what="the program's first lines")
        assert not server.log_path.read_text(), "the imports have not ended"
        server.process.send_signal(signal.SIGHUP)
        server.wait_ready()


def _catches(status: str, number: signal.Signals) -> bool:
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)

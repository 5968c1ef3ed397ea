"""`--workers 2`: one port, two processes, one chat; a dead worker is replaced, and all end together."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from openguild_runtime.embedded import EmbeddedNats
from tests.support.chat import receive, texts
from tests.support.server import ServerProcess
from tests.support.waiting import free_port, wait_until


@pytest.fixture
def pair(
    new_database: Callable[[], str], nats_server: EmbeddedNats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServerProcess]:
    monkeypatch.setenv("TMPDIR", str(temporary(tmp_path)))
    temporary(tmp_path).mkdir()
    server = ServerProcess(tmp_path, "--workers", "2", DATABASE_URL=new_database(), NATS__URL=nats_server.url)
    with server.start():
        wait_until(lambda: len(workers(server)) == 2, what="two workers")
        yield server


def temporary(tmp_path: Path) -> Path:
    """Return the directory for the temporary files of the programs."""
    return tmp_path / "temporary"


def metrics(server: ServerProcess) -> str:
    return httpx.get(server.base_url + "/metrics", timeout=5.0, trust_env=False, verify=False).text


def workers(server: ServerProcess) -> dict[str, int]:
    """Return the process ids of the answering workers by number, from one scrape; none if the answering worker has just died."""
    try:
        text = metrics(server)
    except httpx.TransportError:
        return {}
    up = set(re.findall(r'openguild_worker_up\{worker="(\d+)"\} 1', text))
    serving = set(re.findall(r'openguild_db_ready\{worker="(\d+)"\} 1\.0', text))
    return {number: child for number, child in children(server).items() if number in up & serving}


def children(server: ServerProcess) -> dict[str, int]:
    """Return process ids by worker number, from the socket that each one holds open."""
    assert server.process is not None
    found: dict[str, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == server.process.pid:
            found[str(len(found))] = int(entry.name)
    return found


def test_one_chat_over_both_workers(pair: ServerProcess) -> None:
    alice = pair.chat().user()
    channel = alice.channel(alice.guild())
    with ExitStack() as stack:
        streams = [stack.enter_context(alice.stream(channel, since=0)) for _ in range(8)]  # spread by the kernel
        for number in range(20):
            pair.chat().http.post(
                f"/channels/{channel}/messages", json={"content": f"m{number}"}, headers=alice.auth
            ).raise_for_status()
        for stream in streams:
            assert sorted(texts(receive(stream, 20))) == sorted(f"m{number}" for number in range(20))
        open_here = [
            float(value) for value in re.findall(r'openguild_websocket_connections\{worker="\d"\} (.*)', metrics(pair))
        ]
        assert sum(open_here) == 8
        assert len(open_here) == 2


def test_a_dead_worker_is_replaced_and_the_rest_goes_on(pair: ServerProcess, tmp_path: Path) -> None:
    """The server also keeps nothing in the directory for temporary files: a cleaner may remove it."""
    assert list(temporary(tmp_path).iterdir()) == []
    temporary(tmp_path).rmdir()
    alice = pair.chat().user()
    channel = alice.channel(alice.guild())
    before = set(children(pair).values())
    os.kill(min(before), signal.SIGKILL)
    wait_until(lambda: len(workers(pair)) == 2 and set(workers(pair).values()) != before, secs=60, what="a new worker")
    assert alice.say(channel, "still here")["sequence"] == 1
    assert pair.stop() == 0, pair.tail()
    assert any("restarted" in record["message"] for record in pair.records())
    assert {record.get("worker") for record in pair.records()} >= {0, 1}


def test_workers_do_not_outlive_their_supervisor(pair: ServerProcess) -> None:
    left = set(children(pair).values())
    assert pair.process is not None
    pair.process.kill()
    pair.process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), secs=15, what="the workers' end")


def said(server: ServerProcess, message: str, **fields: object) -> int:
    """Count the records with this message and these fields; output of a dying worker on stderr is not a record."""
    whole, _, _ = server.log_path.read_text().rpartition("\n")  # the last line may be incomplete
    lines = whole.split("\n")
    records = [json.loads(line) for line in lines if line.startswith("{")]
    return sum(
        message in record["message"] and all(record.get(name) == value for name, value in fields.items())
        for record in records
    )


def start_pair(
    tmp_path: Path, new_database: Callable[[], str], nats_server: EmbeddedNats, **settings: object
) -> ServerProcess:
    return ServerProcess(
        tmp_path, "--workers", "2", DATABASE_URL=new_database(), NATS__URL=nats_server.url, **settings
    ).start(ready=False)


@pytest.mark.parametrize("moment", ["two processes", "one configuration"])
def test_sigterm_during_the_start_is_an_orderly_end(
    tmp_path: Path, new_database: Callable[[], str], nats_server: EmbeddedNats, moment: str
) -> None:
    with start_pair(tmp_path, new_database, nats_server) as server:
        if moment == "two processes":
            wait_until(lambda: len(children(server)) == 2, what=moment)
        else:
            wait_until(lambda: said(server, "resolved server configuration"), what=moment)
        assert server.stop() == 0, server.tail()


def test_sigterm_after_a_worker_died_is_an_orderly_end(pair: ServerProcess) -> None:
    os.kill(min(children(pair).values()), signal.SIGKILL)
    assert pair.stop() == 0, pair.tail()


def test_sighup_during_the_start_ends_nobody(
    tmp_path: Path, new_database: Callable[[], str], nats_server: EmbeddedNats
) -> None:
    with start_pair(tmp_path, new_database, nats_server) as server:
        assert server.process is not None
        wait_until(lambda: len(children(server)) == 2, what="two processes")
        hang_up = partial(server.process.send_signal, signal.SIGHUP)  # at each poll, so at every point of the start
        wait_until(lambda: said(server, "a worker serves") == 2 or hang_up(), secs=60, what="both workers")
        assert said(server, "a worker died") == 0
        assert server.stop() == 0, server.tail()


def test_a_hung_worker_is_replaced_whatever_became_of_its_admin_socket(
    tmp_path: Path, new_database: Callable[[], str], nats_server: EmbeddedNats
) -> None:
    with TemporaryDirectory(prefix="og-") as short:
        directory, away = Path(short) / "here", Path(short) / "away"
        directory.mkdir()
        with start_pair(tmp_path, new_database, nats_server, ADMIN_SOCKET=str(directory / "admin.sock")) as server:
            wait_until(
                lambda: said(server, "a worker serves") == 2, secs=60, what=lambda: f"both seats: {server.tail()}"
            )
            directory.rename(away)
            os.kill(min(children(server).values()), signal.SIGSTOP)
            wait_until(lambda: said(server, "does not respond and is killed"), secs=60, what="the kill")
            wait_until(lambda: said(server, "a worker serves") == 3, secs=60, what="the new one")
            wait_until(lambda: said(server, "a local socket cannot be created"), what="the line about its admin socket")
            directory.mkdir()
            wait_until(
                lambda: server.run_command("admin", "show").stdout.count('"settings"') == 2, what="both admin sockets"
            )
            assert said(server, "a worker died") == 1, "the one that hung"
            assert server.stop() == 0, server.tail()


def test_admin_drain_ends_the_whole_server(
    tmp_path: Path, new_database: Callable[[], str], nats_server: EmbeddedNats
) -> None:
    """A worker that drained alone would be started again."""
    with (
        TemporaryDirectory(prefix="og-") as short,
        start_pair(
            tmp_path, new_database, nats_server, ADMIN_SOCKET=str(Path(short) / "admin.sock"), DRAIN__DELAY_SECS=5
        ) as server,
    ):
        wait_until(lambda: said(server, "a worker serves") == 2, secs=60, what=lambda: f"both seats: {server.tail()}")
        for _ in range(2):  # the second one has no effect
            done = server.run_command("admin", "drain")
            assert (done.returncode, json.loads(done.stdout)) == (0, {"worker": 0, "draining": True})
        assert server.process is not None
        assert server.process.wait(20) == 0, server.tail()
        assert said(server, "drained") == 2
        assert said(server, "shutdown signal received") == 3, "the supervisor's, and one of each worker"
        assert said(server, "restarted") == 0


def test_a_worker_that_somebody_ended_is_no_error(pair: ServerProcess) -> None:
    os.kill(min(children(pair).values()), signal.SIGTERM)
    wait_until(lambda: said(pair, "a worker exited and is restarted", level="WARNING", status=0), what="its end")
    wait_until(lambda: len(workers(pair)) == 2, secs=60, what="a new worker")
    assert said(pair, "", level="ERROR") == 0
    assert pair.stop() == 0, pair.tail()


def test_what_an_operator_set_survives_a_worker(
    tmp_path: Path, new_database: Callable[[], str], nats_server: EmbeddedNats
) -> None:
    with (
        TemporaryDirectory(prefix="og-") as short,
        start_pair(tmp_path, new_database, nats_server, ADMIN_SOCKET=str(Path(short) / "admin.sock")) as server,
    ):
        wait_until(lambda: said(server, "a worker serves") == 2, secs=60, what=lambda: f"both seats: {server.tail()}")
        kept = {"messaging.replay_window": 7}
        assert server.run_command("admin", "replay-window", "7").returncode == 0
        wait_until(lambda: said(server, "settings are kept", settings=kept) == 2, what="the supervisor's knowledge")
        for served in (3, 4):  # the second one gets it from the first
            os.kill(max(children(server).values()), signal.SIGKILL)
            wait_until(lambda: said(server, "a worker serves") == served, secs=60, what="the new one")  # noqa: B023
            shown = server.run_command("admin", "show")
            assert (shown.returncode, shown.stdout.count('"messaging.replay_window": 7')) == (0, 2)
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: said(server, "configuration applied", applied=["messaging.replay_window"]) == 4, what="its end"
        )
        assert server.run_command("admin", "show").stdout.count('"messaging.replay_window": 50') == 2
        assert server.stop() == 0, server.tail()


def test_what_workers_need(tmp_path: Path, nats_server: EmbeddedNats) -> None:
    def refused(*flags: str, **settings: object) -> str:
        done = ServerProcess(tmp_path, "--workers", "2", *flags, **settings).run_command()
        assert done.returncode == 1
        return done.stderr

    assert "memory storage" in refused("--storage", "memory")
    assert "need NATS" in refused(DATABASE_URL="postgresql://127.0.0.1/x")
    port = free_port()
    with ServerProcess(tmp_path, "--storage", "memory", port=port).start():
        taken = refused(DATABASE_URL="postgresql://127.0.0.1/x", NATS__URL=nats_server.url, PORT=port)
        assert "in use" in taken

"""The private servers: start, keep data, survive kill -9, leave nothing behind (A9)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import asyncpg
import pytest

from openguild_runtime.embedded import EmbeddedError, EmbeddedNats, EmbeddedPostgres
from tests.support.chat import texts
from tests.support.server import ROOT, ServerProcess
from tests.support.waiting import wait_until


def run_sql(url: str, statement: str) -> object:
    async def run() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return anyio.run(run)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_data_outlives_a_restart_and_a_kill(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    server.start()
    try:
        run_sql(server.url, "CREATE TABLE kept AS SELECT 1 AS one")
        server.kill()
        server.restart()
        assert run_sql(server.url, "SELECT one FROM kept") == 1
    finally:
        server.stop()
    again = EmbeddedPostgres(tmp_path)
    again.start()
    try:
        assert run_sql(again.url, "SELECT one FROM kept") == 1
    finally:
        again.stop()


def test_one_server_per_data_directory(tmp_path: Path) -> None:
    first = EmbeddedNats(tmp_path)
    first.start()
    try:
        with pytest.raises(EmbeddedError) as failure:
            EmbeddedNats(tmp_path).start()
        assert "\n" not in str(failure.value)
    finally:
        first.stop()


def test_passwords_are_kept_from_others(tmp_path: Path) -> None:
    server = EmbeddedNats(tmp_path)
    server.start()
    server.stop()
    assert (tmp_path / "nats.password").stat().st_mode & 0o777 == 0o600


def test_nothing_is_left_when_the_owner_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres\n"
        "servers = EmbeddedPostgres(sys.argv[1]), EmbeddedNats(sys.argv[1])\n"
        "for server in servers: server.start()\nprint(*(server.pid for server in servers), flush=True)\ntime.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) == 2
        owner.send_signal(signal.SIGKILL)
    wait_until(lambda: all(gone(pid) for pid in pids), secs=20)


def test_an_embedded_server_keeps_everything_and_leaves_nothing(tmp_path: Path) -> None:
    """`make run` twice: the second finds the data and the signing key of the first."""
    server = ServerProcess(
        tmp_path, "--embedded", "--data-dir", str(tmp_path / "data"), without=("SESSION__SIGNING_KEY",)
    )
    with server.start():
        alice = server.chat().user("alice")
        channel = alice.channel(alice.guild("kept"))
        alice.say(channel, "before")
        assert (tmp_path / "data/signing.key").stat().st_mode & 0o777 == 0o600
        assert server.stop(signal.SIGINT) == 0
        assert children_in(tmp_path) == []
        server.start()
        assert texts(alice.history(channel)) == ["before"], "the token is good: the key was kept"
        assert server.stop() == 0
    assert children_in(tmp_path) == []


def children_in(directory: Path) -> list[str]:
    """Command lines of processes that were started for `directory`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it ended meanwhile
            if str(directory / "data") in command:
                found.append(command)
    return found

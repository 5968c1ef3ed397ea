"""The private servers: start, keep data, survive kill -9, leave no process behind (PROTOCOL 11.4.4)."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import asyncpg
import pytest

from openguild_runtime.embedded import EmbeddedError, EmbeddedNats, EmbeddedPostgres, running_url
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
    """It has ended, whether or not it was waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter where it ends between opening and reading
        return True


def test_data_survives_a_restart_and_a_kill(tmp_path: Path) -> None:
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


def test_passwords_are_private(tmp_path: Path) -> None:
    server = EmbeddedNats(tmp_path)
    server.start()
    server.stop()
    assert (tmp_path / "nats.password").stat().st_mode & 0o777 == 0o600


def test_no_process_is_left_after_the_owner_is_killed(tmp_path: Path) -> None:
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


def test_an_embedded_server_keeps_data_and_leaves_no_process(tmp_path: Path) -> None:
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


def processes_in(directory: Path, program: str) -> list[int]:
    """The pids of the private programs themselves, without their guards and helpers."""
    ours = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it ended meanwhile
            if command[0].decode().endswith(f"/{program}") and str(directory).encode() in b" ".join(command):
                ours.append(int(entry.name))
    return ours


def test_a_first_run_in_a_terminal_ends_with_what_to_try(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, "--embedded", "--data-dir", str(tmp_path / "data"), LOG_FORMAT="compact")
    with server.in_terminal() as terminal:
        terminal.read_until("  stop: ")
        lines = terminal.screen.splitlines()
        assert len([line for line in lines if "configuration" in line]) <= 10
        assert max(len(line) for line in lines) < 1_000
        (serving,) = [number for number, line in enumerate(lines) if "serving on" in line]
        assert f"serving on {server.base_url}" in lines[serving]
        assert all(line.startswith("  ") for line in lines[serving + 1 :])
        assert "\x1b[2m" in lines[0]
        terminal.press("\x03")
        assert terminal.wait() == 0
    with ServerProcess(tmp_path, "--storage", "memory", LOG_FORMAT="compact").in_terminal(NO_COLOR="1") as terminal:
        terminal.read_until("serving")
        terminal.press("\x03")
        assert terminal.wait() == 0
        assert "\x1b" not in terminal.screen


def test_a_killed_private_server_is_restarted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    server = ServerProcess(tmp_path, "--embedded", "--data-dir", str(data), without=("SESSION__SIGNING_KEY",))
    with server.start():
        alice = server.chat().user("alice")
        channel = alice.channel(alice.guild("kept"))
        for program in ("nats-server", "postgres"):
            [victim] = processes_in(data, program)
            os.kill(victim, signal.SIGKILL)
            wait_until(
                lambda program=program, victim=victim: processes_in(data, program) not in ([], [victim]), secs=30
            )
            body = {"content": f"after {program}", "nonce": program}
            wait_until(lambda body=body: alice.post(f"/channels/{channel}/messages", body).is_success, secs=30)
            wait_until(lambda: server.get("/ready").get("status") == "ready", secs=30, what="readiness")
        assert texts(alice.history(channel)) == ["after nats-server", "after postgres"]
        lines = [line for line in server.records() if line["target"] == "openguild.embedded"]
        assert [line["server"] for line in lines if "is running again" in line["message"]] == ["nats", "postgres"]
        assert server.stop() == 0
    assert children_in(tmp_path) == []


def test_failing_restarts_end_the_server(tmp_path: Path) -> None:
    data = tmp_path / "data"
    server = ServerProcess(tmp_path, "--embedded", "--data-dir", str(data), without=("SESSION__SIGNING_KEY",))
    with server.start():
        [victim] = processes_in(data, "nats-server")
        (data / "nats").rename(data / "moved")
        (data / "nats").write_text("no directory")
        os.kill(victim, signal.SIGKILL)
        assert server.process is not None
        assert server.process.wait(60) == 1
    assert server.records()[-1]["message"].startswith("embedded nats cannot be kept running: ")
    assert children_in(tmp_path) == []


def test_commands_use_the_running_server(tmp_path: Path) -> None:
    """The first administrator, while `make run` serves."""
    flags = ("--embedded", "--data-dir", str(tmp_path / "data"))
    server = ServerProcess(tmp_path, *flags, without=("SESSION__SIGNING_KEY",))
    with server.start():
        seeded = server.run_command("seed-user", "--username", "root", "--password-stdin", stdin="long enough\n")
        assert (seeded.returncode, seeded.stdout[:18]) == (0, "Seeded user 'root'"), seeded.stderr
        given = server.run_command("assign-server-role", "--username", "root", "--role", "owner")
        assert given.returncode == 0, given.stderr
        migrated = server.run_command("migrate")
        assert migrated.returncode == 0, migrated.stderr
        body = {"identifier": "root", "secret": "long enough", "device": {"device_id": "d"}}
        answer = server.chat().http.post("/sessions/login", json=body).json()
        headers = {"authorization": f"Bearer {answer['access_token']}"}
        assert server.chat().http.get("/guilds?all=true", headers=headers).status_code == 200
        second = ServerProcess(tmp_path, *flags).run_command()
        assert second.returncode == 1
        assert "is in use by another server: stop it, or choose another directory with --data-dir" in second.stderr
        assert server.stop() == 0
    alone = server.run_command(
        "seed-user", "--username", "root", "--password-stdin", stdin="long enough\n", DATABASE_URL="postgresql://other"
    )
    assert "ignored: an embedded server runs its own" in alone.stderr, "what `make run` meets in many a shell"
    assert '["DATABASE_URL"]' in alone.stderr
    assert alone.stdout == "User 'root' already exists; skipping\n"


def test_a_locked_directory_without_an_answer(tmp_path: Path) -> None:
    with (tmp_path / "postgres.lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(EmbeddedError, match="does not respond: wait until it serves, or stop it"):
            running_url(tmp_path, limit_secs=0)
    assert running_url(tmp_path) is None


@pytest.mark.parametrize("path", ["file", "x" * 300, "file/below"])
def test_an_unusable_data_directory_is_reported_in_one_line(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    server = ServerProcess(tmp_path, "--embedded", "--data-dir", path, LOG_FORMAT="compact")
    for command in (("config", "check"), (), ("migrate",)):
        done = server.run_command(*command)
        assert done.returncode == 1
        assert done.stderr.startswith(f"openguild-server: data_dir: {tmp_path / path} cannot be used (")
        assert done.stderr.count("\n") == 1


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

"""The data directory after crashes: damage is repaired or reported with its mend."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import asyncpg
import pytest

from openguild_proto.canonical.keys import parse_seed
from openguild_runtime.config.server_config import load
from openguild_runtime.embedded import EmbeddedError, EmbeddedNats, EmbeddedPostgres
from openguild_runtime.embedded.files import is_locked
from openguild_runtime.embedded.private import load_or_create_signing_key, private_servers
from openguild_runtime.embedded.server import EmbeddedServer
from tests.support.server import ROOT
from tests.support.waiting import wait_until


def fetch(url: str, query: str = "SELECT one FROM kept") -> object:
    async def run() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return anyio.run(run)


@pytest.fixture(scope="module")
def stopped(module_directory: Path) -> Path:
    """A data directory with one row; tests break copies of it."""
    data = module_directory / "data"
    for server in (EmbeddedNats(data), EmbeddedPostgres(data, fsync=False)):
        server.start()
        if isinstance(server, EmbeddedPostgres):
            fetch(server.url, "CREATE TABLE kept AS SELECT 1 AS one")
        server.stop()
    return data


@pytest.fixture
def data(stopped: Path, tmp_path: Path) -> Path:
    return shutil.copytree(stopped, tmp_path / "data")


@pytest.fixture
def start(data: Path) -> Iterator[Callable[[type[EmbeddedServer]], EmbeddedServer]]:
    servers: list[EmbeddedServer] = []

    def started(kind: type[EmbeddedServer]) -> EmbeddedServer:
        server = kind(data)
        servers.append(server)
        server.start()
        return server

    yield started
    for server in servers:
        server.stop()


Start = Callable[[type[EmbeddedServer]], EmbeddedServer]


@pytest.mark.parametrize("content", [b"", b"\0" * 33, b"x'; DROP ROLE openguild; --", b"\xff\xfe\n\n"])
def test_a_damaged_password_is_replaced(content: bytes, data: Path, start: Start) -> None:
    for name in ("postgres", "nats"):
        (data / f"{name}.password").write_bytes(content)
    assert fetch(start(EmbeddedPostgres).url) == 1
    start(EmbeddedNats)
    for name in ("postgres", "nats"):
        kept = data / f"{name}.password"
        assert (len(kept.read_text()), kept.stat().st_mode & 0o777) == (33, 0o600)


@pytest.mark.parametrize("content", ["", "garbage\n", "\0\0", "{alive}\n/elsewhere\n", "-{alive}\n", "999999999999\n"])
def test_an_invalid_or_stale_pid_file_is_ignored(content: str, data: Path, start: Start) -> None:
    """One case is this process's own pid: a pid that another program has taken."""
    (data / "postgres/postmaster.pid").write_text(content.format(alive=os.getpid()))
    assert fetch(start(EmbeddedPostgres).url) == 1


def test_a_kill_before_the_password_is_stored(data: Path, start: Start) -> None:
    (data / "postgres.password").unlink()
    (data / "postgres.password.0123abcd.new").write_text("half")
    shutil.copytree(data / "postgres/base", data / "postgres.0123abcd.new/base")
    assert fetch(start(EmbeddedPostgres).url) == 1
    assert list(data.glob("*.new")) == []


def test_an_empty_directory_is_a_first_start(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "nats").mkdir()
    for server in (EmbeddedPostgres(tmp_path, fsync=False), EmbeddedNats(tmp_path)):
        server.start()
        server.stop()


def test_the_password_of_another_copy_is_replaced(data: Path) -> None:
    (data / "postgres.password").write_text(secrets.token_urlsafe(24) + "\n")

    async def serve() -> None:
        config = load({"embedded": True, "data_dir": str(data)}, {}, data)
        async with private_servers(config) as completed:
            assert completed.database_url is not None
            connection = await asyncpg.connect(completed.database_url.get_secret_value())
            try:
                assert await connection.fetchval("SELECT one FROM kept") == 1
            finally:
                await connection.close()

    anyio.run(serve)


@pytest.mark.parametrize("content", [b"", b"\0" * 43, b"\n"])
def test_an_empty_signing_key_is_replaced(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    path.write_bytes(content)
    key = load_or_create_signing_key(tmp_path)
    parse_seed(key)
    assert load_or_create_signing_key(tmp_path) == key == path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"AAECAwQFBgc", b"signing_key = 12", b"\xff\xfe"])
def test_an_invalid_signing_key_is_kept_and_reported(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    path.write_bytes(content)
    with pytest.raises(
        EmbeddedError, match=r"signing\.key does not contain a signing key .*: restore the right file, or remove"
    ):
        load_or_create_signing_key(tmp_path)
    assert path.read_bytes() == content


def without_version(data: Path) -> None:
    (data / "postgres/PG_VERSION").unlink()


def without_control(data: Path) -> None:
    (data / "postgres/global/pg_control").unlink()


def without_databases(data: Path) -> None:
    shutil.rmtree(data / "postgres/base")


def without_log(data: Path) -> None:
    shutil.rmtree(data / "postgres/pg_wal")


def of_another_version(data: Path) -> None:
    (data / "postgres/PG_VERSION").write_text("12\n")


def a_file(data: Path) -> None:
    shutil.rmtree(data / "postgres")
    (data / "postgres").touch()


def password_directory(data: Path) -> None:
    (data / "postgres.password").unlink()
    (data / "postgres.password").mkdir()


def a_link_to_nowhere(data: Path) -> None:
    (data / "postgres").rename(data / "moved")
    (data / "postgres").symlink_to(data / "gone")


def control_of_zeros(data: Path) -> None:
    (data / "postgres/global/pg_control").write_bytes(bytes(8192))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without_version, "is not a complete PostgreSQL cluster: restore it from a backup, move it away"),
        (without_control, "is not a complete PostgreSQL cluster: restore it from a backup, move it away"),
        (without_databases, "is not a complete PostgreSQL cluster: restore it from a backup, move it away"),
        (without_log, "is not a complete PostgreSQL cluster: restore it from a backup, move it away"),
        (of_another_version, "was made by PostgreSQL 12, this is 18: dump it with that version"),
        (a_file, "postgres: not a directory): fix that, or choose another directory with --data-dir"),
        (password_directory, "postgres.password: is a directory): fix that"),
        (a_link_to_nowhere, "postgres is a broken symbolic link: fix it, or choose another"),
        (control_of_zeros, "exited at its start: "),
    ],
)
def test_irreparable_damage_is_reported_in_one_line(damage: Callable[[Path], None], said: str, data: Path) -> None:
    damage(data)
    server = EmbeddedPostgres(data)
    with pytest.raises(EmbeddedError) as failure:
        server.start()
    assert said in str(failure.value)
    assert str(data) in str(failure.value)
    assert "\n" not in str(failure.value)


def test_orphans_of_a_killed_server_and_guard_are_stopped(data: Path, start: Start) -> None:
    """The program is signalled when its guard dies; here it is stopped and still runs when the next server starts."""
    script = (
        "import sys, time\nfrom openguild_runtime.embedded import EmbeddedPostgres\n"
        "server = EmbeddedPostgres(sys.argv[1])\nserver.start()\nprint(server.pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(data)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as owner:  # fmt: skip
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        guard = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(pid, signal.SIGSTOP)
        for victim in (owner.pid, guard):
            os.kill(victim, signal.SIGKILL)
    with ThreadPoolExecutor(1) as thread:
        starting = thread.submit(start, EmbeddedPostgres)
        wait_until(lambda: is_locked(data / "postgres.lock"))
        assert not starting.done()
        os.kill(pid, signal.SIGCONT)
        server = starting.result()
    assert fetch(server.url) == 1
    assert server.pid != pid
    wait_until(lambda: not Path(f"/proc/{pid}/cwd").exists())


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounts a small disk")
def test_a_full_disk_is_reported_and_the_next_start_works(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\nfrom openguild_runtime.embedded import EmbeddedError, EmbeddedPostgres\n"
        "try: EmbeddedPostgres(sys.argv[1] + '/data').start()\nexcept EmbeddedError as failure: print(failure)\n"
        "subprocess.run(['mount', '-o', 'remount,size=200m', sys.argv[1]], check=True)\n"
        "server = EmbeddedPostgres(sys.argv[1] + '/data')\nserver.start()\nserver.stop()\nprint('served')"
    )
    for size in ("8k", "20m"):
        shell = 'mount -t tmpfs -o "size=$1" none "$2" || exit 77; exec "$3" -c "$4" "$2"'
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", shell, "sh", size, str(tmp_path), sys.executable, script],
            capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        if done.returncode == 77 or "unshare failed" in done.stderr:
            pytest.skip("no right to mount")
        lines = done.stdout.splitlines()
        assert lines[1:] == ["served"], done.stderr
        assert "is full: free some space" in lines[0] or "(no space left on device): fix that" in lines[0]


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounts a small disk")
def test_full_shared_memory_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom openguild_runtime.embedded import EmbeddedError, EmbeddedPostgres\n"
        "try: EmbeddedPostgres(sys.argv[1]).start()\nexcept EmbeddedError as failure: print(failure)\n"
    )
    # the directory itself may be below /dev/shm
    shell = (
        'mount --bind "$3" /mnt && mount -t tmpfs -o size=512k none /dev/shm || exit 77; exec "$1" -c "$2" /mnt/data'
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", shell, "sh", sys.executable, script, str(tmp_path)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("no right to mount")
    assert "the shared memory of /dev/shm is full: free some space" in done.stdout, done.stderr

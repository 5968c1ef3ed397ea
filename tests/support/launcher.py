"""`openguild-server` processes forked from one that has imported the program, because its imports take longer than most tests.

The first `launch` starts the launcher, `python -m tests.support.launcher DESCRIPTOR`. A forked process gets the environment,
directory, arguments and standard streams of its caller, runs `main`, and ends as an interpreter does, except that modules are
not torn down, which takes longer than most commands. Passwords are hashed cheaply. Processes end with the launcher.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
PYTHON_ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join((str(ROOT / "tests/support/as_installed"), str(ROOT))),
    "PYTHONWARNINGS": "error::ResourceWarning",
}
NUMBER = struct.Struct("i")  # a process id, then its wait status
MAX_REQUEST_BYTES = 1 << 20
PRELOADED = (
    "openguild_runtime.cli.main", "openguild_runtime.server.run", "openguild_runtime.workers.supervisor", "uvloop",
    "alembic.command", "sqlalchemy.ext.asyncio",
)  # fmt: skip
STREAMS = 4  # standard input, output and error, and the pipe for NUMBERs


# --- in the callers' process -----------------------------------------------------------------------------------------


class LaunchedProcess:
    """The part of `subprocess.Popen` that tests use, for a child of the launcher."""

    def __init__(self, answers: int) -> None:
        self._answers = answers
        self.returncode: int | None = None
        pid = self._read(None)
        assert pid is not None
        self.pid = pid

    def _read(self, timeout: float | None) -> int | None:
        """Return the next NUMBER; None if it does not arrive in time."""
        if not select.select([self._answers], [], [], timeout)[0]:
            return None
        data = os.read(self._answers, NUMBER.size)
        assert data, "the launcher has ended"
        return int(NUMBER.unpack(data)[0])

    def poll(self) -> int | None:
        if self.returncode is None:
            self._take(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._take(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(f"openguild-server, process {self.pid}", timeout or 0.0)
        return self.returncode

    def _take(self, timeout: float | None) -> None:
        status = self._read(timeout)
        if status is not None:
            self.returncode = os.waitstatus_to_exitcode(status)
            os.close(self._answers)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def launch(
    arguments: Sequence[str], *, directory: Path, environment: Mapping[str, str], stdin: int, stdout: int, stderr: int
) -> LaunchedProcess:
    """Start `openguild-server` with these arguments, this environment and these descriptors."""
    request = {"arguments": list(arguments), "directory": str(directory), "environment": dict(environment)}
    ours, theirs = os.pipe()
    with _one_at_a_time:
        control = _control()
    try:
        socket.send_fds(control, [json.dumps(request).encode()], [stdin, stdout, stderr, theirs])
    finally:
        os.close(theirs)
    return LaunchedProcess(ours)


def run_launched(
    arguments: Sequence[str], *, directory: Path, environment: Mapping[str, str], stdin: str, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run `openguild-server` as `subprocess.run` does, with its output captured as text."""
    with TemporaryFile("w+") as given, TemporaryFile("w+") as out, TemporaryFile("w+") as errors:
        given.write(stdin)
        given.seek(0)
        process = launch(
            arguments, directory=directory, environment=environment, stdin=given.fileno(), stdout=out.fileno(),
            stderr=errors.fileno(),
        )  # fmt: skip
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        for stream in (out, errors):
            stream.seek(0)
        return subprocess.CompletedProcess(["openguild-server", *arguments], status, out.read(), errors.read())


_one_at_a_time = threading.Lock()


@functools.cache
def _control() -> socket.socket:
    """Return the socket to the launcher, which ends when the socket is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_REQUEST_BYTES)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENGUILD_")}
    with theirs:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "tests.support.launcher", str(theirs.fileno())],
            cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
            env=environment | PYTHON_ENVIRONMENT,
        )  # fmt: skip
    atexit.register(_end, ours, launcher)
    return ours


def _end(control: socket.socket, launcher: subprocess.Popen[bytes]) -> None:
    control.close()
    launcher.wait()


# --- in the launcher -------------------------------------------------------------------------------------------------


@dataclass
class Request:
    arguments: list[str]
    directory: str
    environment: dict[str, str]


def serve(control: socket.socket) -> Request:
    """Fork a process for each request. Return the request in the new process, with its streams in place."""
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGCHLD)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C of a test run: pytest ends the launcher
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    answers: dict[int, int] = {}  # process id -> pipe for its NUMBERs
    while True:
        readable, _, _ = select.select([control, awake], [], [])
        if awake in readable:
            os.read(awake, 4_096)
            _report_ended(answers)
        if control not in readable:
            continue
        data, streams, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, STREAMS)
        if not data:
            control.close()
            raise SystemExit(0)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for number, stream in enumerate(streams[:3]):
                os.dup2(stream, number)
            os.closerange(3, max(control.fileno(), awake, wake, *streams, *answers.values()) + 1)
            control.detach()
            return Request(**json.loads(data))
        answers[pid] = streams[3]
        os.write(streams[3], NUMBER.pack(pid))
        for stream in streams[:3]:
            os.close(stream)


def _report_ended(answers: dict[int, int]) -> None:
    while answers:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        pipe = answers.pop(pid)
        with suppress(BrokenPipeError):  # the caller has gone
            os.write(pipe, NUMBER.pack(status))
        os.close(pipe)


def end(status: str | int | None) -> NoReturn:
    """End as `sys.exit(status)`: wait for threads, run exit handlers, warn about unclosed resources, flush the output."""
    if isinstance(status, str):
        sys.stderr.write(status + "\n")
    code = status if isinstance(status, int) else int(status is not None)
    threading._shutdown()  # as Py_FinalizeEx does
    atexit._run_exitfuncs()
    gc.collect()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = 120
    os._exit(code & 0xFF)


def die_with_launcher() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def hash_cheaply() -> None:
    """Hash passwords at the lowest cost: at the real one, two hashes are most of the time that a test's user takes."""
    from openguild_runtime.effects import passwords

    passwords.Argon2 = partial(_cheap, passwords.Argon2)


def _cheap(real: Callable[..., object], **given: object) -> object:
    return real(**given | {"time_cost": 1, "memory_cost": 64})


def main() -> NoReturn:
    gc.disable()
    for name in PRELOADED:
        importlib.import_module(name)
    gc.enable()
    hash_cheaply()
    from openguild_runtime.cli.main import main as run

    gc.collect()
    gc.freeze()
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    die_with_launcher()
    os.chdir(request.directory)
    os.environ.clear()
    os.environ.update(request.environment)
    sys.argv = ["openguild-server", *request.arguments]
    try:
        status: str | int | None = run()
    except SystemExit as ended:
        status = ended.code
    end(status)


if __name__ == "__main__":
    main()

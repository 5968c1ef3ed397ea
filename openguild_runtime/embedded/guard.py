"""The guard: the parent process of a private PostgreSQL or NATS, which stops that program when the server is gone.

It runs as a script (`python -I -S guard.py`) with the standard library only. `server.py` communicates with it over its standard
input and output:

- first line in: the job as JSON (`Job` in server.py); later lines: `stop` (an orderly stop) or `kill` (SIGKILL);
- lines out: `started PID`, then `exited CODE`; or `failed TEXT`.

The end of its input means that the server has exited, even by SIGKILL: the guard then stops the program in order. It runs
in its own session, so Ctrl-C reaches neither the guard nor the program. If the guard is killed, Linux signals the program
(PR_SET_PDEATHSIG; the server cannot use it, because it fires when the forking *thread* exits).

PostgreSQL refuses to run as root, so as root the guard switches to the job's account. That account need not be able to
reach the data directory: the guard opens it and passes `/proc/self/fd/N` to the program. The program has no capabilities
and cannot gain any, and a switched account has no supplementary groups.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

KILL_AFTER_SECS = 15.0  # for an orderly stop, before SIGKILL
LOCK_WAIT_SECS = 20.0  # the guard of a killed server may still be stopping its program

DIRECTORY = "{directory}"  # placeholder in the job's arguments for the path of the program's directory

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
CAPABILITY_VERSION_3 = 0x20080522
MAX_CAPABILITIES = 64  # bits of a capability set


def main() -> int:
    """Run the job given on standard input until it or the parent ends. Return the exit status."""
    job: dict[str, Any] = json.loads(_read_job_line())
    with _locking_copy(job["copy"]):
        return _run(job)


def _run(job: dict[str, Any]) -> int:
    for name in ("SIGINT", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    if not _take_lock(job["lock"]):
        _say(f"failed another process uses {job['directory']}")
        return 1
    waker, wake = os.pipe()
    for end in (waker, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: None)
    pid, failure = _spawn(job)
    if failure:
        os.waitpid(pid, 0)
        _say(f"failed {failure}")
        return 1
    _say(f"started {pid}")
    _say(f"exited {_supervise(pid, waker, job['stop_signal'])}")
    return 0


@contextlib.contextmanager
def _locking_copy(copy: str | None) -> Iterator[None]:
    """Lock the copy of the programs, so that no other server removes it as stale, and remove it at the end."""
    if copy is None:
        yield
        return
    descriptor = os.open(copy, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        yield
    finally:
        shutil.rmtree(copy, ignore_errors=True)
        os.close(descriptor)


def _supervise(pid: int, waker: int, stop_signal: int) -> int:
    """Perform the server's commands until the program exits. Return its exit code, negative for a signal."""
    watched = [0, waker]
    deadline: float | None = None
    while True:
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select(watched, [], [], timeout)
        asked = b""
        if waker in ready and signal.SIGTERM in os.read(waker, 4096):
            asked = b"stop"
        if 0 in ready:
            asked = os.read(0, 4096)
            if not asked:
                watched.remove(0)
                asked = b"stop"
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if b"kill" in asked or (deadline is not None and time.monotonic() >= deadline):
            os.kill(pid, signal.SIGKILL)
        elif b"stop" in asked and deadline is None:
            os.kill(pid, stop_signal)
            deadline = time.monotonic() + KILL_AFTER_SECS


def _spawn(job: dict[str, Any]) -> tuple[int, str]:
    """Fork and exec the program. Return its pid, and the reason if it could not be started."""
    report, failed = os.pipe()
    feed, fed = os.pipe()
    guard = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(feed, 0)
            _exec_program(job, guard)
        except OSError as error:
            about = error.filename or os.path.basename(job["argv"][0])
            os.write(failed, f"{about}: {(error.strerror or '').lower()}".encode(errors="surrogateescape"))
        os._exit(127)
    for end in (failed, feed):
        os.close(end)
    with contextlib.suppress(BrokenPipeError), os.fdopen(fed, "wb") as pipe:  # the program may exit without reading
        pipe.write(job["input"].encode())
    with os.fdopen(report, "rb") as pipe:
        return pid, pipe.read().decode(errors="surrogateescape")


def _exec_program(job: dict[str, Any], guard: int) -> NoReturn:
    """Set up log file, directory, privileges and death signal, and exec the program. Runs in the child."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.umask(0o077)
    os.chdir(job["directory"])
    place = job["directory"]
    if job["uid"] is not None:
        if sys.platform == "linux":
            here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
            os.set_inheritable(here, True)
            place = f"/proc/self/fd/{here}"
        os.fchown(0, job["uid"], job["gid"])  # so that it can open /dev/stdin
    _drop_privileges(job)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, job["stop_signal"])
        if os.getppid() != guard:
            os._exit(127)
    argv = [argument.replace(DIRECTORY, place) for argument in job["argv"]]
    os.execve(argv[0], argv, job["env"])  # noqa: S606 - an absolute path from the server


def _drop_privileges(job: dict[str, Any]) -> None:
    """Switch to the job's account, if it has one, and drop every capability permanently. Raises OSError."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # needs CAP_SETPCAP; without it NO_NEW_PRIVS is sufficient
            for capability in range(MAX_CAPABILITIES):  # until the first that the kernel does not support
                _prctl(PR_CAPBSET_DROP, capability)
    if job["uid"] is not None:
        try:
            os.setgroups([])
            os.setresgid(job["gid"], job["gid"], job["gid"])
            os.setresuid(job["uid"], job["uid"], job["uid"])
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"the account with uid {job['uid']} cannot be used") from None
    if sys.platform == "linux":
        _give_up_capabilities()
        _prctl(PR_SET_NO_NEW_PRIVS, 1)


def _prctl(option: int, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    if libc.prctl(option, *padded) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def _give_up_capabilities() -> None:
    """Clear the effective, permitted and inheritable sets; the kernel then clears the ambient set."""
    sets = (_Sets * 2)()
    if ctypes.CDLL(None, use_errno=True).capset(ctypes.byref(_Header(CAPABILITY_VERSION_3, 0)), sets) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _take_lock(path: str) -> bool:
    """Lock `path` until this process exits; the program does not inherit the descriptor. Return False on timeout."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCK_WAIT_SECS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)


def _read_job_line() -> bytes:
    """Read the first line byte by byte, so that later lines stay in the pipe for `select`."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(1)
        line += byte
    return bytes(line)


def _say(text: str) -> None:
    try:
        os.write(1, text.encode(errors="surrogateescape") + b"\n")
    except BrokenPipeError:
        return  # the server is gone


if __name__ == "__main__":
    sys.exit(main())

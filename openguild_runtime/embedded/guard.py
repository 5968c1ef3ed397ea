"""The process between the server and a private PostgreSQL or NATS: it sees to it that none is left behind.

Run as a script (`python -I -S guard.py`) with the standard library alone; `server.py` speaks to it through
its standard input and output:

- first line in: the job as JSON (`Job` in embedded.py); later lines: `stop` (the program's own orderly stop) or
  `kill` (SIGKILL, for chaos tests);
- lines out: `started PID`, then `exited CODE`; or `failed TEXT`.

The end of its input means that the server is gone, however it went (Ctrl-C, SIGTERM, SIGKILL): the program is then
stopped in order. It runs in a session of its own, so the terminal's Ctrl-C reaches neither it nor the program. Should
the guard itself be killed, Linux signals the program (PR_SET_PDEATHSIG, which would not do in the server: it counts
from the end of the *thread* that forked).

PostgreSQL refuses to run as root. For root the guard drops to the job's uid; where that uid cannot reach the program
or the data, because a directory above them is closed to others (0700: /root, `mktemp -d`), the program keeps one
capability, CAP_DAC_READ_SEARCH (CAP_DAC_OVERRIDE where a container has only that), as an ambient one. No permission of
any directory is changed.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

KILL_AFTER_SECS = 15.0  # an orderly stop that takes longer ends with SIGKILL
LOCK_WAIT_SECS = 20.0  # the guard of a killed server may still be stopping its program

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2


def main() -> int:
    """Run the job that standard input describes until it or the parent ends; the exit status."""
    job: dict[str, Any] = json.loads(_first_line())
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
    _say(f"exited {_attend(pid, waker, job['stop_signal'])}")
    return 0


def _attend(pid: int, waker: int, stop_signal: int) -> int:
    """Until the program has ended: hand on what the server asks. Returns its exit code, negative for a signal."""
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
    """Fork and exec the program. Returns its pid and, if it could not be started, why."""
    report, failed = os.pipe()
    feed, fed = os.pipe()
    guard = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(feed, 0)
            _become(job, guard)
        except OSError as error:
            os.write(failed, f"{os.path.basename(job['argv'][0])}: {error.strerror}".encode())
        os._exit(127)
    for end in (failed, feed):
        os.close(end)
    with os.fdopen(fed, "wb") as pipe:
        pipe.write(job["input"].encode())
    with os.fdopen(report, "rb") as pipe:
        return pid, pipe.read().decode(errors="replace")


def _become(job: dict[str, Any], guard: int) -> NoReturn:
    """In the child: log file, privileges, death signal, exec."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.umask(0o077)
    if job["uid"] is not None:
        _drop_privileges(job)
    os.chdir(job["directory"])
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, job["stop_signal"])
        if os.getppid() != guard:
            os._exit(127)
    os.execve(job["argv"][0], job["argv"], job["env"])  # noqa: S606 - the program's path is absolute and ours


def _drop_privileges(job: dict[str, Any]) -> None:
    linux = sys.platform == "linux"
    if linux:
        _prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(job["gid"], job["gid"], job["gid"])
    os.setresuid(job["uid"], job["uid"], job["uid"])
    # access(2) looks at the real uid, without capabilities
    reachable = (
        os.access(job["argv"][0], os.X_OK)
        and os.access(job["directory"], os.R_OK | os.W_OK | os.X_OK)
        and all(os.access(path, os.R_OK) for path in job["reads"])
    )
    if not linux:
        if not reachable:
            raise PermissionError(1, f"uid {job['uid']} cannot reach it")
        return
    permitted = _permitted_capabilities()
    wanted = [CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH] if not reachable else []
    kept = [capability for capability in wanted if permitted & 1 << capability]
    if wanted and not kept:
        raise PermissionError(1, f"uid {job['uid']} cannot reach it, and this container allows no way round")
    # To exec a file closed to others takes DAC_OVERRIDE, now; afterwards DAC_READ_SEARCH is enough to search and read.
    lasting = [CAP_DAC_READ_SEARCH] if CAP_DAC_READ_SEARCH in kept and not job["executes"] else kept
    _set_capabilities(kept, inheritable=lasting)
    for capability in lasting:
        _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def _prctl(option: int, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    if libc.prctl(option, *padded) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def _permitted_capabilities() -> int:
    sets = (_Sets * 2)()
    if ctypes.CDLL(None, use_errno=True).capget(ctypes.byref(_Header(CAPABILITY_VERSION_3, 0)), sets) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(sets[0].permitted)


def _set_capabilities(capabilities: list[int], *, inheritable: list[int]) -> None:
    """Exactly these, effective and permitted (all are below 32)."""
    mask = sum(1 << capability for capability in capabilities)
    sets = (_Sets * 2)(_Sets(mask, mask, sum(1 << capability for capability in inheritable)), _Sets(0, 0, 0))
    if ctypes.CDLL(None, use_errno=True).capset(ctypes.byref(_Header(CAPABILITY_VERSION_3, 0)), sets) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _take_lock(path: str) -> bool:
    """Held until this process ends; the descriptor is not inherited by the program."""
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


def _first_line() -> bytes:
    """Byte by byte: what follows the line belongs to the loop."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(1)
        line += byte
    return bytes(line)


def _say(text: str) -> None:
    try:
        os.write(1, text.encode() + b"\n")
    except BrokenPipeError:
        return  # the server is gone; nobody is left to be told


if __name__ == "__main__":
    sys.exit(main())

"""Unix sockets that only the server's user may open, such as the admin socket.

Each of several workers has its own, `<path>.<number>`. A socket whose file was removed, for example by a cleaner of temporary
files, is created again. A failure to create it is logged once and does not end the server.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import structlog
from anyio.abc import SocketListener, SocketStream, TaskGroup

ACCEPT_PAUSE_SECS = 0.1  # after a failed accept, such as EMFILE
CHECK_SECS = 2.0
MAX_PATH_BYTES = 100  # sun_path holds 104 to 108 bytes with its NUL; a worker's number is appended
MAX_NAME_BYTES = 80  # after /proc/self/fd/<number>/

Answer = Callable[[SocketStream], Awaitable[None]]

log = structlog.get_logger("openguild.local")


def path_length_problem(path: Path) -> str | None:
    """Return why a socket's path is too long, or None if it is not."""
    if sys.platform == "linux":
        if len(os.fsencode(path.name)) > MAX_NAME_BYTES:
            return f"a socket's name has at most {MAX_NAME_BYTES} bytes: choose a shorter one"
    elif len(os.fsencode(path)) > MAX_PATH_BYTES:
        return f"a socket's path has at most {MAX_PATH_BYTES} bytes: choose a shorter one"
    return None


@contextmanager
def short_socket_path(path: Path) -> Iterator[str]:
    """Yield a path short enough to bind or connect to `path`: on Linux, through its directory's descriptor. Raises OSError."""
    if len(os.fsencode(path)) <= MAX_PATH_BYTES or sys.platform != "linux":
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def worker_path(path: Path, number: int) -> Path:
    """Return the path of worker `number`'s socket."""
    return path.with_name(f"{path.name}.{number}")


def worker_paths(path: Path) -> dict[int, Path]:
    """Return the existing worker sockets by number. Includes those that killed processes left behind."""
    found = {each.suffix[1:]: each for each in path.parent.glob(f"{glob.escape(path.name)}.*")}
    return {int(number): found[number] for number in sorted(filter(str.isdecimal, found), key=int)}


def remove_stale_sockets(path: Path) -> None:
    """Remove sockets that earlier processes left at `path` and for their workers.

    Files that cannot be removed are ignored, because creating the new socket logs the reason.
    """
    for each in (path, *worker_paths(path).values()):
        with suppress(OSError):
            each.unlink(missing_ok=True)


async def serve_unix_socket(path: Path, answer: Answer, check_secs: float = CHECK_SECS) -> None:
    """Call `answer` for each connection at `path`, until cancelled. A failure ends only its own connection.

    `check_secs` is the time between two checks that the socket's file exists.
    """
    problem = ""
    async with anyio.create_task_group() as tasks:
        while True:
            try:
                listener = await _listen(path)
                place = _inode_of(path)
            except OSError as failure:
                reason = (failure.strerror or type(failure).__name__).lower()
                if reason != problem:
                    log.error("a local socket cannot be created; retrying", path=str(path), reason=reason)  # noqa: TRY400 - no traceback
                problem = reason
                await anyio.sleep(check_secs)
                continue
            problem = ""
            try:
                async with listener, anyio.create_task_group() as serving:
                    serving.start_soon(_accept, path, listener, tasks, answer)
                    await _wait_until_removed(path, place, check_secs)
                    serving.cancel_scope.cancel()
            finally:
                if _inode_of(path) == place:
                    with suppress(OSError):
                        path.unlink(missing_ok=True)  # noqa: ASYNC240 - once, at the end
            log.warning("a local socket was removed and has been recreated", path=str(path))


async def _listen(path: Path) -> SocketListener:
    path.unlink(missing_ok=True)  # noqa: ASYNC240 - once, before anything is served; left by an earlier process
    with short_socket_path(path) as name:
        return await anyio.create_unix_listener(name, mode=0o600)


def _inode_of(path: Path) -> tuple[int, int] | None:
    """Return (device, inode) of the file at `path`, or None."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


async def _wait_until_removed(path: Path, place: tuple[int, int] | None, check_secs: float) -> None:
    """Wait until no file is at `path`. If another server's socket has replaced this one, that server keeps the path."""
    reported = False
    while (now := _inode_of(path)) is not None:
        if now != place and not reported:
            reported = True
            log.warning("another server has replaced a local socket", path=str(path))
        await anyio.sleep(check_secs)


async def _accept(path: Path, listener: SocketListener, tasks: TaskGroup, answer: Answer) -> None:
    async def handle(stream: SocketStream) -> None:
        try:
            async with stream:
                await answer(stream)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # the client disconnected
        except Exception:  # must not end the server
            log.exception("local request failed", path=str(path))

    problem = 0
    while True:
        try:
            stream = await listener.accept()
        except OSError as failure:
            if failure.errno != problem:  # log each error once until the next success
                log.error("cannot accept a local request", path=str(path), errno=failure.errno)  # noqa: TRY400 - no traceback
            problem = failure.errno or 0
            await anyio.sleep(ACCEPT_PAUSE_SECS)
        else:
            problem = 0
            tasks.start_soon(handle, stream)

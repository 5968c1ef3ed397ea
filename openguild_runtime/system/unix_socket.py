"""Unix sockets on this host that only the server's user may open: the admin socket.

Of several workers each has a socket of its own: `<path>.<number>`. A cleaner may take its name away: it is made again. What
stands in its way is said in one line, and never ends the server.
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

ACCEPT_PAUSE_SECS = 0.1  # out of descriptors: the backlog holds who comes until some are free
CHECK_SECS = 2.0  # between two looks whether the socket still has its name
MAX_PATH_BYTES = 100  # sun_path has 104 to 108 with its end; a worker's number comes to it
MAX_NAME_BYTES = 80  # behind /proc/self/fd/<number>/

Answer = Callable[[SocketStream], Awaitable[None]]

log = structlog.get_logger("openguild.local")


def path_length_problem(path: Path) -> str | None:
    """What is wrong with the length of a socket's path and the mend; None: nothing."""
    if sys.platform == "linux":
        if len(os.fsencode(path.name)) > MAX_NAME_BYTES:
            return f"a socket's name has at most {MAX_NAME_BYTES} bytes: choose a shorter one"
    elif len(os.fsencode(path)) > MAX_PATH_BYTES:
        return f"a socket's path has at most {MAX_PATH_BYTES} bytes: choose a shorter one"
    return None


@contextmanager
def short_socket_path(path: Path) -> Iterator[str]:
    """A name under which a socket at `path` can be bound or reached: Linux takes a path of any length by its directory's
    descriptor. Raises OSError."""
    if len(os.fsencode(path)) <= MAX_PATH_BYTES or sys.platform != "linux":
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def worker_path(path: Path, number: int) -> Path:
    """Where worker `number` answers what a single process answers at `path`."""
    return path.with_name(f"{path.name}.{number}")


def worker_paths(path: Path) -> dict[int, Path]:
    """The sockets of workers that are there, by number; a killed process leaves its own behind."""
    found = {each.suffix[1:]: each for each in path.parent.glob(f"{glob.escape(path.name)}.*")}
    return {int(number): found[number] for number in sorted(filter(str.isdecimal, found), key=int)}


def remove_stale_sockets(path: Path) -> None:
    """Take away what processes of before left at `path` and for their workers: whoever starts now is the only server.

    What cannot be removed stands in the way of the new socket, which says so.
    """
    for each in (path, *worker_paths(path).values()):
        with suppress(OSError):
            each.unlink(missing_ok=True)


async def serve_unix_socket(path: Path, answer: Answer) -> None:
    """`answer` every connection at `path`, until cancelled. A failure ends its own connection and nothing else."""
    problem = ""
    async with anyio.create_task_group() as tasks:
        while True:
            try:
                listener = await _listen(path)
                place = _inode_of(path)
            except OSError as failure:
                reason = (failure.strerror or type(failure).__name__).lower()
                if reason != problem:
                    log.error("a local socket cannot be made; it is tried again", path=str(path), reason=reason)  # noqa: TRY400 - no traceback
                problem = reason
                await anyio.sleep(CHECK_SECS)
                continue
            problem = ""
            try:
                async with listener, anyio.create_task_group() as serving:
                    serving.start_soon(_accept, path, listener, tasks, answer)
                    await _wait_until_removed(path, place)
                    serving.cancel_scope.cancel()
            finally:
                if _inode_of(path) == place:
                    with suppress(OSError):
                        path.unlink(missing_ok=True)  # noqa: ASYNC240 - once, at the end
            log.warning("a local socket was removed and is made again", path=str(path))


async def _listen(path: Path) -> SocketListener:
    path.unlink(missing_ok=True)  # noqa: ASYNC240 - once, before anything is served; of the process before
    with short_socket_path(path) as name:
        return await anyio.create_unix_listener(name, mode=0o600)


def _inode_of(path: Path) -> tuple[int, int] | None:
    """What has the name now; None: nothing."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


async def _wait_until_removed(path: Path, place: tuple[int, int] | None) -> None:
    """Return when nothing has the name. Another server's socket may have it: that server was started later, and keeps it."""
    told = False
    while (now := _inode_of(path)) is not None:
        if now != place and not told:
            told = True
            log.warning("another server has taken a local socket's name", path=str(path))
        await anyio.sleep(CHECK_SECS)


async def _accept(path: Path, listener: SocketListener, tasks: TaskGroup, answer: Answer) -> None:
    async def handle(stream: SocketStream) -> None:
        try:
            async with stream:
                await answer(stream)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # whoever asked has gone
        except Exception:  # contained: an escaping one would end the whole server
            log.exception("local request failed", path=str(path))

    problem = 0
    while True:
        try:
            stream = await listener.accept()
        except OSError as failure:
            if failure.errno != problem:  # one line until the next success
                log.error("cannot accept a local request", path=str(path), errno=failure.errno)  # noqa: TRY400 - no traceback
            problem = failure.errno or 0
            await anyio.sleep(ACCEPT_PAUSE_SECS)
        else:
            problem = 0
            tasks.start_soon(handle, stream)

"""Unix sockets on this host that only the server's user may open: the admin socket, and what workers ask each other.

Of several workers each has a socket of its own: `<path>.<number>`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import structlog
from anyio.abc import SocketStream

ACCEPT_PAUSE_SECS = 0.1  # out of descriptors: the backlog holds who comes until some are free

log = structlog.get_logger("openguild.local")


def worker_path(path: Path, number: int) -> Path:
    """Where worker `number` answers what a single process answers at `path`."""
    return path.with_name(f"{path.name}.{number}")


def worker_paths(path: Path) -> dict[int, Path]:
    """The sockets of workers that are there, by number; a killed process leaves its own behind."""
    found = {each.suffix[1:]: each for each in path.parent.glob(f"{path.name}.*")}
    return {int(number): found[number] for number in sorted(filter(str.isdecimal, found), key=int)}


def forget(path: Path) -> None:
    """Take away what processes of before left at `path` and for their workers: whoever starts now is the only server."""
    for each in (path, *worker_paths(path).values()):
        each.unlink(missing_ok=True)


async def serve_local(path: Path, answer: Callable[[SocketStream], Awaitable[None]]) -> None:
    """`answer` every connection at `path`, until cancelled. A failure ends its own connection and nothing else."""

    async def handle(stream: SocketStream) -> None:
        try:
            async with stream:
                await answer(stream)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # whoever asked has gone
        except Exception:  # contained: an escaping one would end the whole server
            log.exception("local request failed", path=str(path))

    path.unlink(missing_ok=True)  # noqa: ASYNC240 - once, before anything is served; of the process before
    listener = await anyio.create_unix_listener(path, mode=0o600)
    try:
        async with listener, anyio.create_task_group() as tasks:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as failure:
                    log.error("cannot accept a local request", path=str(path), errno=failure.errno)  # noqa: TRY400 - no traceback
                    await anyio.sleep(ACCEPT_PAUSE_SECS)
                else:
                    tasks.start_soon(handle, stream)
    finally:
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - once, at the end

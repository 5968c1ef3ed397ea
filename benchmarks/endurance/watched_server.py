"""`python watched_server.py LOOP COUNTS ARGUMENTS`: openguild-server with ARGUMENTS on `uvloop` or `asyncio`.

At SIGUSR2 it writes counts that are too slow for a metric into the file COUNTS, as JSON: tasks, descriptors, and the bytes in the
cache of replay pages. If the file COUNTS.settle exists, it first collects garbage and returns free memory to the system, so that
the remaining memory is in use.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import signal
import socket
import stat
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from openguild_proto.replica.pages import Pages

loop_name, counts = sys.argv[1:3]
if loop_name == "asyncio":
    sys.modules["uvloop"] = None  # type: ignore[assignment]  # as if it were not installed


caches: list[Pages] = []
DATABASE_PORT = urlsplit(os.environ["OPENGUILD_SERVER__DATABASE_URL"]).port
PORT = int(os.environ["OPENGUILD_SERVER__PORT"])


def descriptors() -> int:
    """Return the number of descriptors without database sessions, whose number varies, and clients, which metrics count."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode) and _is_of_pool_or_client(int(name)):
                continue
        except OSError:  # the descriptor of the listing itself
            continue
        count += 1
    return count


def _is_of_pool_or_client(number: int) -> bool:
    with socket.socket(fileno=os.dup(number)) as sock:
        try:
            ours, theirs = sock.getsockname(), sock.getpeername()
        except OSError:  # not connected
            return False
    return isinstance(theirs, tuple) and (theirs[1] == DATABASE_PORT or ours[1] == PORT)


def write_count(_signal: int, _frame: FrameType | None) -> None:
    if Path(counts + ".settle").exists():
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
        if trim is not None:
            trim(0)
    found = {
        "tasks": len(asyncio.all_tasks()),
        "descriptors": descriptors(),
        "replay_pages": sum(cache.nbytes for cache in caches),
    }
    fresh = Path(counts + ".new")
    fresh.write_text(json.dumps(found))
    fresh.replace(counts)


async def counted(main: object, *arguments: object) -> object:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, write_count, signal.SIGUSR2, None)
    return await main(*arguments)  # type: ignore[operator]


if __name__ == "__main__":
    from openguild_proto.replica import replica
    from openguild_runtime.cli.main import main
    from openguild_runtime.server import run

    class CountedPages(replica.Pages):
        """The server's cache of pages, kept here because no metric has its size."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            caches.append(self)

    replica.Pages = CountedPages  # type: ignore[misc]
    serve = run.serve
    run.serve = lambda *arguments: counted(serve, *arguments)  # type: ignore[assignment]
    os.environ.setdefault("OPENGUILD_LOG", "warn")
    sys.argv = ["openguild-server", *sys.argv[3:]]
    sys.exit(main())

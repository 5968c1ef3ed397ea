"""`python watched_server.py LOOP COUNTS ARGUMENTS`: openguild-server with ARGUMENTS on `uvloop` or `asyncio`.

At SIGUSR2 it writes how many tasks there are into the file COUNTS: no metric does, because counting them takes time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from types import FrameType

loop_name, counts = sys.argv[1:3]
if loop_name == "asyncio":
    sys.modules["uvloop"] = None  # type: ignore[assignment]  # as if it were not installed


def write_count(_signal: int, _frame: FrameType | None) -> None:
    fresh = Path(counts + ".new")
    fresh.write_text(str(len(asyncio.all_tasks())))
    fresh.replace(counts)


async def counted(main: object, *arguments: object) -> object:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, write_count, signal.SIGUSR2, None)
    return await main(*arguments)  # type: ignore[operator]


if __name__ == "__main__":
    from openguild_runtime.cli.main import main
    from openguild_runtime.server import run

    serve = run.serve
    run.serve = lambda *arguments: counted(serve, *arguments)  # type: ignore[assignment]
    os.environ.setdefault("OPENGUILD_LOG", "warn")
    sys.argv = ["openguild-server", *sys.argv[3:]]
    sys.exit(main())

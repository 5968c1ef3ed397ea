"""Parts shared by the Python peers: the commands, the message, and the count of CPU."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable


def message(size: int) -> bytes:
    """Return `size` bytes of JSON that begin with the current monotonic time in nanoseconds."""
    head = b'{"t":%020d,"p":"' % time.monotonic_ns()
    return head + b"x" * (size - len(head) - 2) + b'"}'


def cpu_secs() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def control(port: int, publish: Callable[[bytes], None], flushed: Callable[[], Awaitable[None]]) -> None:
    """Print "ready", then perform `go RATE COUNT BURST SIZE`: publish, wait until the kernel has all bytes, report."""
    sys.stdout.write(f"ready {port}\n")
    sys.stdout.flush()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        _, rate, count, burst, size = line.split()
        started, used = time.monotonic(), cpu_secs()
        due = started
        for _ in range(int(count)):
            for _ in range(int(burst)):
                publish(message(int(size)))
            due += 1 / float(rate)
            await flushed()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await flushed()
        sys.stdout.write(json.dumps({"cpu": cpu_secs() - used, "wall": time.monotonic() - started}) + "\n")
        sys.stdout.flush()


async def nothing() -> None:
    """Wait for one turn of the loop, for libraries that do not tell when their buffers are empty."""
    await asyncio.sleep(0)

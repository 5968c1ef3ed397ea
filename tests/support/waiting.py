"""Wait for a condition with a deadline; never for a fixed time."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import anyio
from anyio.abc import UNIXSocketStream

T = TypeVar("T")
PATIENCE_SECS = 30.0  # only a failure takes it; a machine that others use needs more than it seems
POLL_SECS = 0.02
MAX_POLL_SECS = 0.1


def wait_until(
    condition: Callable[[], T], *, secs: float = PATIENCE_SECS, what: str | Callable[[], str] = "the condition"
) -> T:
    """Poll `condition` until it is truthy; its value, or AssertionError with `what` after `secs`."""
    deadline, pause = time.monotonic() + secs, POLL_SECS
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            what = what() if callable(what) else what
            raise AssertionError(f"{what} did not come true within {secs} s; last value: {value!r}")
        threading_pause(pause)
        pause = min(pause * 1.25, MAX_POLL_SECS)  # what is looked at has to work for it as well


def threading_pause(secs: float) -> None:
    """The pause between two looks."""
    time.sleep(secs)


async def eventually(
    condition: Callable[[], T | Awaitable[T]], *, secs: float = PATIENCE_SECS, what: str = "the condition"
) -> T:
    """The same without blocking the loop; `condition` may be a coroutine function."""
    with anyio.fail_after(secs):
        while True:
            value = condition()
            if isinstance(value, Awaitable):
                value = await value
            if value:
                return value
            await anyio.sleep(POLL_SECS)


async def connect_unix(path: Path, *, secs: float = PATIENCE_SECS) -> UNIXSocketStream:
    """A connection to the server at `path`, once it listens: the file is there a moment before that."""
    with anyio.fail_after(secs):
        while True:
            with suppress(FileNotFoundError, ConnectionRefusedError):
                return await anyio.connect_unix(path)
            await anyio.sleep(POLL_SECS)


FIRST_PORT, PORTS = 20_000, 1_500  # of each worker of a run, eight in all; below Linux's ephemeral ports
_given: deque[int] = deque(maxlen=PORTS // 2)


def free_port() -> int:
    """A loopback TCP port that nobody listens on now, and that the kernel gives to no client until somebody does.

    No other worker of the run is given it: a server of another test would answer in the place of one that is still starting.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = FIRST_PORT + worker % 8 * PORTS + secrets.randbelow(PORTS)  # `random` starts alike in every worker
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            if port not in _given:
                _given.append(port)
                return port

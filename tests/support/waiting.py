"""Waits for conditions with a deadline; never for a fixed time."""

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
PATIENCE_SECS = 30.0  # long, because only failures take it and a busy machine is slow
POLL_SECS = 0.02
MAX_POLL_SECS = 0.1


def wait_until(
    condition: Callable[[], T], *, secs: float = PATIENCE_SECS, what: str | Callable[[], str] = "the condition"
) -> T:
    """Poll `condition` until it is truthy and return its value. Raises AssertionError with `what` after `secs`."""
    deadline, pause = time.monotonic() + secs, POLL_SECS
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            what = what() if callable(what) else what
            raise AssertionError(f"{what} did not come true within {secs} s; last value: {value!r}")
        threading_pause(pause)
        pause = min(pause * 1.25, MAX_POLL_SECS)  # polling takes time from the processes that are polled


def threading_pause(secs: float) -> None:
    """Sleep between two polls."""
    time.sleep(secs)


async def eventually(
    condition: Callable[[], T | Awaitable[T]], *, secs: float = PATIENCE_SECS, what: str = "the condition"
) -> T:
    """Wait as `wait_until` does, without blocking the loop; `condition` may be a coroutine function."""
    with anyio.fail_after(secs):
        while True:
            value = condition()
            if isinstance(value, Awaitable):
                value = await value
            if value:
                return value
            await anyio.sleep(POLL_SECS)


async def connect_unix(path: Path, *, secs: float = PATIENCE_SECS) -> UNIXSocketStream:
    """Return a connection to the server at `path`, once it listens: the file appears a moment earlier."""
    with anyio.fail_after(secs):
        while True:
            with suppress(FileNotFoundError, ConnectionRefusedError):
                return await anyio.connect_unix(path)
            await anyio.sleep(POLL_SECS)


FIRST_PORT, PORTS = 20_000, 1_500  # per worker of a run, of eight in all; below Linux's ephemeral ports
_given: deque[int] = deque(maxlen=PORTS // 2)


def free_port() -> int:
    """Return a loopback TCP port on which nobody listens, and which the kernel gives to no client.

    No other worker of the run gets it: else another test's server could answer in place of one that is still starting.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = FIRST_PORT + worker % 8 * PORTS + secrets.randbelow(PORTS)  # `random` has the same seed in every worker
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            if port not in _given:
                _given.append(port)
                return port

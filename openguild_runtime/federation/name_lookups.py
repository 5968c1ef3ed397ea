"""Resolves the names of other servers, apart from the names that this process itself depends on.

The loop has few threads for lookups; uvloop uses two. Names that somebody else chooses, and whose name servers do not answer, would
hold them for long, and nothing that connects by a name could reconnect meanwhile: not to the database, not to NATS.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from openguild_runtime.system.threads import start_thread, wait_for_thread

MAX_LOOKUPS = 64  # concurrent, in a process; `max_discoveries_per_window` with names that take 20 s each need 40

Lookup = Callable[..., Sequence[tuple[Any, ...]]]  # the signature of socket.getaddrinfo


class NameLookups:
    """Runs each lookup in its own thread. A lookup counts until it ends, even if its caller no longer waits for it."""

    def __init__(self, lookup: Lookup = socket.getaddrinfo, *, at_once: int = MAX_LOOKUPS) -> None:
        self._lookup = lookup
        self._places = anyio.Semaphore(at_once, fast_acquire=True)

    async def resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of a name, in the system's order. Raises OSError."""
        found: list[str] = []

        def look_up() -> None:
            lines = self._lookup(host.encode("ascii"), port, type=socket.SOCK_STREAM)
            found.extend(dict.fromkeys(str(line[4][0]) for line in lines))

        await self._places.acquire()
        try:
            done = start_thread(look_up)
        except RuntimeError as full:
            self._places.release()
            raise OSError(errno.EAGAIN, str(full)) from full
        done.add_done_callback(lambda _: self._places.release())
        await wait_for_thread(done)
        return found

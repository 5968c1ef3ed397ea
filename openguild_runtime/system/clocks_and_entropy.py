"""Where time and randomness come from: the one place of the runtime that a simulation replaces."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

POOL_BYTES = 4_096


class Entropy:
    """The kernel's randomness, asked for in larger pieces: a request needs two small ones. Each byte is given out once.

    Not for a process that forks afterwards (workers are started anew).
    """

    __slots__ = ("_at", "_pool")

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0

    def __call__(self, count: int) -> bytes:
        """`count` unguessable bytes."""
        start, end = self._at, self._at + count
        if end > len(self._pool):
            if count > POOL_BYTES:
                return os.urandom(count)
            self._pool = os.urandom(POOL_BYTES)
            start, end = 0, count
        self._at = end
        return self._pool[start:end]


@dataclass(frozen=True, slots=True)
class ClocksAndEntropy:
    """`monotonic`: seconds, for deadlines. `wall`: UTC seconds, for stamps and expiries. `random_bytes(n)`: unguessable."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    random_bytes: Callable[[int], bytes] = field(default_factory=Entropy)

"""The runtime's clocks and randomness, which simulations replace."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

POOL_BYTES = 4_096


class Entropy:
    """Random bytes from the kernel, read in blocks because a request needs only a few. Each byte is returned once.

    It is not safe across fork. Workers are new processes, not forks.
    """

    __slots__ = ("_at", "_pool")

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0

    def __call__(self, count: int) -> bytes:
        """Return `count` cryptographically random bytes."""
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
    """Clocks and randomness: `monotonic` seconds for deadlines, `wall` UTC seconds for timestamps, random bytes for secrets."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    random_bytes: Callable[[int], bytes] = field(default_factory=Entropy)

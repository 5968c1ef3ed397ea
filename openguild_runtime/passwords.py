"""Argon2id in a bounded worker thread, so that hashing never blocks the loop (D-21)."""

from __future__ import annotations

import anyio
import anyio.to_thread
from argon2 import PasswordHasher as Argon2
from argon2 import Type
from argon2.exceptions import InvalidHashError, VerificationError

MAX_CONCURRENT = 2  # each takes 19 MiB and some tens of milliseconds of a core


class PasswordHasher:
    """Parameters of CONTRACT 5.1: v19, m=19456 KiB, t=2, p=1."""

    def __init__(self, concurrent: int = MAX_CONCURRENT) -> None:
        self._argon2 = Argon2(time_cost=2, memory_cost=19_456, parallelism=1, type=Type.ID)
        self._dummy = self._argon2.hash("the password of nobody")
        self._concurrent = concurrent
        self._limiter: anyio.CapacityLimiter | None = None

    def _slots(self) -> anyio.CapacityLimiter:
        if self._limiter is None:  # a limiter belongs to the loop it is first used in
            self._limiter = anyio.CapacityLimiter(self._concurrent)
        return self._limiter

    async def hash(self, password: str) -> str:
        """The PHC string."""
        return await anyio.to_thread.run_sync(self._argon2.hash, password, limiter=self._slots())

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """False for a wrong password, and for None at the cost of a real verification."""
        matches = await anyio.to_thread.run_sync(
            self._verify, password_hash or self._dummy, password, limiter=self._slots()
        )
        return matches and password_hash is not None

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._argon2.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False

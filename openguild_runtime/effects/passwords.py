"""Argon2id in a bounded worker thread, so that hashing never blocks the loop (PROTOCOL 4.1.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
from argon2 import PasswordHasher as Argon2
from argon2 import Type
from argon2.exceptions import InvalidHashError, VerificationError

from openguild_proto.effects import Overloaded

MAX_CONCURRENT = 2  # each takes 19 MiB and tens of milliseconds of a core
MAX_WAITING = 64  # one or two seconds of work

T = TypeVar("T")


class PasswordHasher:
    """Hashes with the parameters of PROTOCOL 4.1.3: v19, m=19456 KiB, t=2, p=1.

    Methods raise Overloaded if `waiting` calls are queued already.
    """

    def __init__(self, concurrent: int = MAX_CONCURRENT, waiting: int = MAX_WAITING) -> None:
        self._argon2 = Argon2(time_cost=2, memory_cost=19_456, parallelism=1, type=Type.ID)
        self._dummy = self._argon2.hash("the password of nobody")
        self._concurrent = concurrent
        self._waiting = waiting
        self._limiter: anyio.CapacityLimiter | None = None
        self._unfinished = 0  # running or queued

    async def _run(self, function: Callable[..., T], *arguments: str) -> T:
        if self._unfinished >= self._concurrent + self._waiting:
            raise Overloaded
        if self._limiter is None:  # a limiter belongs to the loop of its first use
            self._limiter = anyio.CapacityLimiter(self._concurrent)
        self._unfinished += 1
        try:
            return await anyio.to_thread.run_sync(function, *arguments, limiter=self._limiter)
        finally:
            self._unfinished -= 1

    async def hash(self, password: str) -> str:
        """Return the PHC string of a password."""
        return await self._run(self._argon2.hash, password)

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Return whether the password matches. A hash of None never matches, but takes the same time."""
        matches = await self._run(self._verify, password_hash or self._dummy, password)
        return matches and password_hash is not None

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._argon2.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False

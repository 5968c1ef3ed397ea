"""Hashing in bounded threads, with a bounded queue before them (PROTOCOL 4.1.3)."""

from __future__ import annotations

import anyio
import pytest

from openguild_proto.effects import Overloaded
from openguild_runtime.effects.passwords import PasswordHasher

pytestmark = pytest.mark.anyio


async def test_a_hash_verifies_its_password_and_nobody_s_verifies_none() -> None:
    hasher = PasswordHasher()
    hashed = await hasher.hash("correct horse")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await hasher.verify(hashed, "correct horse")
    assert not await hasher.verify(hashed, "wrong horse")
    assert not await hasher.verify(None, "the password of nobody")
    assert not await hasher.verify("no hash", "correct horse")


async def test_what_would_wait_behind_a_full_queue_is_refused_at_once() -> None:
    hasher = PasswordHasher(concurrent=1, waiting=5)
    done, refused = [], []

    async def ask(number: int) -> None:
        try:
            done.append(await (hasher.verify(None, "x") if number % 2 else hasher.hash("x")))
        except Overloaded:
            refused.append(len(done))

    async with anyio.create_task_group() as tasks:
        for number in range(16):
            tasks.start_soon(ask, number)
    assert len(done) == 6
    assert refused == [0] * 10, "before any of the others was done"
    assert not await hasher.verify(None, "x"), "and there is room again"

"""Where a statement of PostgreSQL decides by itself, it decides as the core's function does; so does every store."""

from __future__ import annotations

from random import Random

import pytest

from openguild_proto.effects.attempts import AttemptKey, CountAttempt
from openguild_proto.effects.channels import MarkRead
from openguild_proto.policy.attempts import bin_of, decide_attempt, forgotten_until
from openguild_proto.policy.channels import decide_read_position
from openguild_proto.records import Author
from openguild_runtime.storage.base import Storage
from tests.support.deeds import NOW, add_channel, add_guild, add_user, append

pytestmark = pytest.mark.anyio

WINDOW_SECS = 60


async def test_read_positions(storage: Storage) -> None:
    rng = Random(5)
    owner = await add_user(storage)
    channel = await add_channel(storage, await add_guild(storage, owner), owner)
    head = stored = 0
    for _ in range(60):
        if rng.random() < 0.4:
            await storage.perform(append(channel, text=f"{head}"))
            head += 1
        asked = rng.choice([None, rng.randrange(-2, 30)])
        stored = decide_read_position(asked, head=head, stored=stored)
        mark = MarkRead(author=Author(owner), channel_id=channel, sequence=asked, now_ms=NOW)
        assert (await storage.perform(mark)).last_read_sequence == stored


async def test_attempts(storage: Storage) -> None:
    rng = Random(6)
    keys = (AttemptKey(b"a" * 32, 4), AttemptKey(b"b" * 32, 7))
    counted: dict[bytes, dict[int, int]] = {key.digest: {} for key in keys}
    now_ms = NOW
    for _ in range(150):
        now_ms += rng.choice([0, 200, 1_500, 9_000])
        asked = rng.choice([keys, keys[:1], keys[1:]])
        start = forgotten_until(now_ms, WINDOW_SECS)
        living = [({at: count for at, count in counted[key.digest].items() if at > start}, key.limit) for key in asked]
        expected = decide_attempt(living, now_ms=now_ms, window_secs=WINDOW_SECS)
        if expected is None:
            at = bin_of(now_ms, WINDOW_SECS)
            for key in asked:
                counted[key.digest][at] = counted[key.digest].get(at, 0) + 1
        wait_secs = await storage.perform(CountAttempt(keys=asked, window_secs=WINDOW_SECS, now_ms=now_ms))
        assert wait_secs == (expected if expected is None else pytest.approx(expected))

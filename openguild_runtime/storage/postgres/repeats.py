"""Answers of creations with an idempotency key, kept in PostgreSQL."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from openguild_proto.limits import MAX_KEPT_ANSWERS
from openguild_proto.policy.repeats import IdempotencyKey, KeptAnswer, decide_repeat
from openguild_proto.records import Author, Record
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import moment, to_millis

R = TypeVar("R", bound=Record)

# Requests with the same key wait for each other, so that the next reads the answer of the previous one.
HOLD = "SELECT pg_advisory_xact_lock(hashtextextended($1::uuid::text || $2, 0))"
FIND = "SELECT fingerprint, answer, created_at FROM idempotency_keys WHERE user_id = $1 AND key = $2"
KEEP = """
INSERT INTO idempotency_keys (user_id, key, fingerprint, answer, created_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (user_id, key) DO UPDATE
SET fingerprint = excluded.fingerprint, answer = excluded.answer, created_at = excluded.created_at
"""
# The excess rows are found first, because FOR UPDATE with OFFSET would lock the skipped rows too.
TRIM = """
DELETE FROM idempotency_keys WHERE user_id = $1 AND key IN (
    SELECT key FROM idempotency_keys WHERE user_id = $1 AND key IN (
        SELECT key FROM idempotency_keys WHERE user_id = $1 ORDER BY created_at DESC, key COLLATE "C" OFFSET $2
    ) FOR UPDATE SKIP LOCKED
)
"""


async def find_repeat(
    tx: Transaction, author: Author, once: IdempotencyKey | None, kind: type[R], now_ms: int
) -> R | None:
    """Return the answer of the first request with this key, or None if this is the first. Raises Refusal 409 for another request.

    Locks the key until the end of the transaction. The caller has locked the author's rights.
    """
    if once is None:
        return None
    await tx.connection.execute(HOLD, author.user_id, once.key)
    row = await tx.connection.fetchrow(FIND, author.user_id, once.key)
    kept = KeptAnswer(row["fingerprint"], row["answer"], to_millis(row["created_at"])) if row is not None else None
    answer = decide_repeat(kept, once, now_ms=now_ms)
    return msgspec.json.decode(answer, type=kind) if answer is not None else None


async def keep_answer(
    tx: Transaction, author: Author, once: IdempotencyKey | None, answer: Record, now_ms: int
) -> None:
    """Store the answer for repeats of the request, and delete the oldest beyond MAX_KEPT_ANSWERS."""
    if once is None:
        return
    encoded = msgspec.json.encode(answer)
    await tx.connection.execute(KEEP, author.user_id, once.key, once.fingerprint, encoded, moment(now_ms))
    await tx.connection.execute(TRIM, author.user_id, MAX_KEPT_ANSWERS)

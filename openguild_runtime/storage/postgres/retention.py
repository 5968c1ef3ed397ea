"""Deletes expired rows in small batches. All replicas may run it concurrently."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openguild_proto.effects.performs import performs
from openguild_proto.effects.retention import PruneExpired
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.sessions import prune_users
from openguild_runtime.storage.postgres.values import moment, rows_changed

if TYPE_CHECKING:
    from openguild_runtime.storage.postgres.transaction import Transaction

CONTROL = """
DELETE FROM control_log WHERE created_at < $1
AND sequence IN (SELECT sequence FROM control_log ORDER BY sequence LIMIT $2 FOR UPDATE)
"""
ATTEMPTS = """
DELETE FROM login_attempts WHERE (key, at) IN (
    SELECT key, at FROM login_attempts WHERE at < $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED
)
"""
ANSWERS = """
DELETE FROM idempotency_keys WHERE (user_id, key) IN (
    SELECT user_id, key FROM idempotency_keys WHERE created_at < $1 ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
"""


@performs(PruneExpired, Mode.TRANSACTION)
async def prune_expired(tx: Transaction, effect: PruneExpired) -> bool:
    # lock users as a login does, so that the two do not delete the same rows in different orders
    users = await tx.connection.fetch(
        "SELECT user_id FROM users WHERE user_id >= $1 ORDER BY user_id LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED",
        effect.from_user,
        effect.limit,
    )
    await prune_users(tx, [str(row["user_id"]) for row in users], effect.now_ms)
    dropped = [
        rows_changed(await tx.connection.execute(statement, moment(before_ms), effect.limit))
        for statement, before_ms in (
            (CONTROL, effect.control_before_ms),
            (ATTEMPTS, effect.attempts_before_ms),
            (ANSWERS, effect.answers_before_ms),
        )
    ]
    return max(dropped) == effect.limit

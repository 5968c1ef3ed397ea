"""Counts login attempts in PostgreSQL, for all replicas: `count_attempt_v1` of the schema."""

from __future__ import annotations

from openguild_proto.effects.attempts import CountAttempt
from openguild_proto.effects.performs import performs
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.values import Connection, moment


@performs(CountAttempt, Mode.CHANGE)
async def count_attempt(connection: Connection, effect: CountAttempt) -> float | None:
    wait: float | None = await connection.fetchval(
        "SELECT count_attempt_v1($1, $2, $3, $4)",
        [key.digest for key in effect.keys],
        [key.limit for key in effect.keys],
        effect.window_secs,
        moment(effect.now_ms),
    )
    return wait

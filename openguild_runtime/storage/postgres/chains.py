"""Receipt chains of logs in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openguild_proto.effects.deliveries import (
    BeginChains,
    ChainPart,
    ChainPoint,
    MoveChains,
    ReadChains,
    ReadEventIds,
)
from openguild_proto.effects.performs import performs
from openguild_proto.records import LogPosition
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.values import Connection, texts

READ = """
SELECT given.log_id, given.epoch, known.sequence, known.hash, ARRAY(
    SELECT e.event_id FROM log_events AS e
    WHERE e.log_id = given.log_id AND e.sequence > known.sequence
      AND e.sequence <= least(given.sequence, known.sequence + $4)
    ORDER BY e.sequence
) AS event_ids
FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS given (log_id, epoch, sequence, place)
JOIN LATERAL (
    (SELECT sequence, hash FROM federation_chains AS f
    WHERE f.log_id = given.log_id AND f.epoch = given.epoch AND f.sequence <= given.sequence)
    UNION ALL
    (SELECT sequence, hash FROM federation_checkpoints AS c
    WHERE c.log_id = given.log_id AND c.epoch = given.epoch AND c.sequence <= given.sequence
    ORDER BY sequence DESC LIMIT 1)
    ORDER BY sequence DESC LIMIT 1
) AS known ON true
ORDER BY given.place
"""
# Committed without waiting for the disk: values lost in a crash are computed again, and posts do not wait for them.
_LAZILY = "set_config('synchronous_commit', 'off', true)"
_GIVEN = """
given AS (
    SELECT log_id, epoch, sequence, hash FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bytea[])
    AS row (log_id, epoch, sequence, hash)
)
"""
BEGIN = f"""
WITH {_GIVEN}, held AS (
    SELECT log_id, epoch FROM logs WHERE log_id IN (SELECT log_id FROM given) ORDER BY log_id FOR KEY SHARE
), begun AS (
    INSERT INTO federation_chains AS f (log_id, epoch, sequence, hash)
    SELECT DISTINCT ON (log_id) log_id, epoch, sequence, hash FROM given JOIN held USING (log_id, epoch)
    ON CONFLICT (log_id) DO UPDATE SET epoch = EXCLUDED.epoch, sequence = EXCLUDED.sequence, hash = EXCLUDED.hash
    WHERE f.epoch <> EXCLUDED.epoch RETURNING log_id, epoch, sequence, hash
), former AS (
    DELETE FROM federation_checkpoints AS c USING begun WHERE c.log_id = begun.log_id AND c.epoch <> begun.epoch
)
INSERT INTO federation_checkpoints (log_id, epoch, sequence, hash) SELECT log_id, epoch, sequence, hash FROM begun
"""
# Locked in log order, because processes that deliver the same logs to different peers store tips at the same time.
MOVE_TIPS = f"""
WITH {_GIVEN}, held AS MATERIALIZED (
    SELECT log_id FROM federation_chains WHERE log_id IN (SELECT log_id FROM given) ORDER BY log_id FOR NO KEY UPDATE
)
UPDATE federation_chains AS f SET sequence = given.sequence, hash = given.hash
FROM given JOIN held USING (log_id), {_LAZILY} AS lazily
WHERE f.log_id = given.log_id AND f.epoch = given.epoch AND f.sequence < given.sequence
"""
ADD_CHECKPOINTS = f"""
WITH {_GIVEN}, held AS (
    SELECT log_id, epoch FROM federation_chains WHERE log_id IN (SELECT log_id FROM given) ORDER BY log_id FOR KEY SHARE
)
INSERT INTO federation_checkpoints (log_id, epoch, sequence, hash)
SELECT log_id, epoch, sequence, hash FROM {_LAZILY} AS lazily, given JOIN held USING (log_id, epoch) ON CONFLICT DO NOTHING
"""


@performs(ReadChains, Mode.QUERY)
async def read_chains(connection: Connection, effect: ReadChains) -> tuple[ChainPart, ...]:
    places = effect.places
    rows = await connection.fetch(
        READ,
        [place.log_id for place in places],
        [place.epoch for place in places],
        [place.sequence for place in places],
        effect.limit,
    )
    return tuple(
        ChainPart(
            ChainPoint(LogPosition(str(row["log_id"]), row["epoch"], row["sequence"]), row["hash"]),
            texts(row["event_ids"]),
        )
        for row in rows
    )


@performs(BeginChains, Mode.CHANGE)
async def begin_chains(connection: Connection, effect: BeginChains) -> None:
    await connection.execute(BEGIN, *_columns(effect.points))


@performs(MoveChains, Mode.CHANGE)
async def move_chains(connection: Connection, effect: MoveChains) -> None:
    """Store checkpoints and tips, in two statements: one without the other does no harm."""
    if effect.checkpoints:
        await connection.execute(ADD_CHECKPOINTS, *_columns(effect.checkpoints))
    if effect.tips:
        await connection.execute(MOVE_TIPS, *_columns(effect.tips))


def _columns(points: Sequence[ChainPoint]) -> tuple[list[Any], ...]:
    return (
        [point.place.log_id for point in points],
        [point.place.epoch for point in points],
        [point.place.sequence for point in points],
        [point.hash for point in points],
    )


@performs(ReadEventIds, Mode.QUERY)
async def read_event_ids(connection: Connection, effect: ReadEventIds) -> tuple[str, ...]:
    rows = await connection.fetch(
        "SELECT event_id FROM log_events WHERE log_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3",
        effect.log_id,
        effect.after,
        effect.limit,
    )
    return texts(row["event_id"] for row in rows)

"""The cursors of peers that mirror guilds, and the leases for deliveries to them, in PostgreSQL."""

from __future__ import annotations

from openguild_proto.effects.deliveries import (
    AffectedPeers,
    BehindLog,
    FindAffectedPeers,
    FindBehind,
    FindEnded,
    FindMirrored,
    FindMirroring,
    Leases,
    LeaveLeases,
    MirroredLog,
    MoveCursors,
    NotePurged,
    TakeLeases,
)
from openguild_proto.effects.performs import performs
from openguild_proto.records import LogPosition
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, Row, moment, texts

# Of the rows `m` of federation_guilds and the logs `own`, those that the peer does not have completely. A peer without
# members left gets only the guild's log, up to the last removal. A peer that is denied in the guild gets nothing.
_BEHIND = """
SELECT m.peer, m.guild_id, l.log_id, l.epoch, m.ended_at IS NOT NULL AS ends,
    CASE WHEN m.ended_at IS NULL THEN l.head_sequence ELSE m.last_sequence END AS head,
    coalesce(c.sequence, 0) AS after, coalesce(c.epoch, l.epoch) AS cursor_epoch
FROM {mirrored}
JOIN logs AS l ON l.log_id = own.log_id
LEFT JOIN federation_cursors AS c ON c.peer = m.peer AND c.log_id = own.log_id
WHERE m.purged_at IS NULL AND CASE WHEN m.ended_at IS NULL
    THEN {level}coalesce(c.sequence, 0) < l.head_sequence OR c.epoch <> l.epoch
    ELSE own.log_id = m.guild_id AND coalesce(c.sequence, 0) < m.last_sequence END
    AND NOT EXISTS (SELECT FROM federation_rulings AS r
        WHERE r.server = m.peer AND r.guild_id = m.guild_id::text AND r.standing = 'deny')
"""
FIND_BEHIND = (
    _BEHIND.format(
        level="$5 OR ",
        mirrored="""federation_guilds AS m JOIN LATERAL (
            SELECT m.guild_id AS log_id UNION ALL SELECT channel_id FROM channels WHERE guild_id = m.guild_id
        ) AS own ON true""",
    )
    + """
AND m.peer = $1 AND ($3::uuid IS NULL OR
    (m.guild_id, own.log_id <> m.guild_id, own.log_id) > ($3, $3 <> $4::uuid, $4::uuid))
ORDER BY m.guild_id, own.log_id <> m.guild_id, own.log_id LIMIT $2
"""
)
_GROWN = """
WITH grown AS (
    SELECT l.log_id, coalesce(c.guild_id, l.log_id) AS guild_id FROM logs AS l
    LEFT JOIN channels AS c ON c.channel_id = l.log_id WHERE l.log_id = ANY ($1::uuid[]) AND l.kind <> 'user'
)
"""
# First a row without a peer for each mirrored log, then a row for each log and peer that is behind. A row without a log
# stands for a deleted guild.
FIND_WOKEN = (
    _GROWN
    + """, mirrored AS MATERIALIZED (
    SELECT grown.log_id, bool_or(lease.holder IS DISTINCT FROM $2) AS elsewhere, bool_or(lease.holder IS NULL) AS free
    FROM grown JOIN federation_guilds AS m USING (guild_id) LEFT JOIN federation_leases AS lease USING (peer)
    WHERE m.purged_at IS NULL GROUP BY grown.log_id
), behind AS (
"""
    + _BEHIND.format(
        level="",
        mirrored="""(SELECT guild_id, log_id FROM grown UNION SELECT guild_id, guild_id FROM grown) AS own
        JOIN federation_guilds AS m ON m.guild_id = own.guild_id
        JOIN federation_leases AS lease ON lease.peer = m.peer AND lease.holder = $2""",
    )
    + """), gone AS (
    SELECT m.peer, m.guild_id, lease.holder FROM federation_guilds AS m LEFT JOIN federation_leases AS lease USING (peer)
    WHERE m.guild_id = ANY ($1::uuid[]) AND m.ended_at IS NOT NULL AND m.purged_at IS NULL
    AND NOT EXISTS (SELECT FROM logs WHERE log_id = m.guild_id)
)
SELECT peer, guild_id, log_id, epoch, ends, head, after, cursor_epoch, free FROM (
SELECT NULL AS peer, NULL::uuid AS guild_id, log_id, NULL::bigint AS epoch, elsewhere AS ends, NULL::bigint AS head,
    NULL::bigint AS after, NULL::bigint AS cursor_epoch, free
FROM mirrored
UNION ALL
SELECT peer, guild_id, log_id, epoch, ends, head, after, cursor_epoch, false FROM behind
UNION ALL
SELECT NULL, NULL, guild_id, NULL, bool_or(holder IS DISTINCT FROM $2), NULL, NULL, NULL, bool_or(holder IS NULL)
FROM gone GROUP BY guild_id
UNION ALL
SELECT peer, guild_id, NULL, 0, true, 0, 0, 0, false FROM gone WHERE holder = $2
) AS found ORDER BY peer COLLATE "C" NULLS FIRST, guild_id, guild_id <> log_id, log_id
"""
)
# A new cursor locks the rows of mirror and log, so that neither is marked as purged or deleted meanwhile. They are locked before
# the cursors, as everywhere: `moved` runs last, because nothing refers to it. Committed without waiting for the disk: after a
# crash, events are delivered again, and the peer's answer has its position.
MOVE_CURSORS = """
WITH given AS (
    SELECT peer, log_id, epoch, sequence FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::bigint[])
    AS row (peer, log_id, epoch, sequence), set_config('synchronous_commit', 'off', true)
), wanted AS (
    SELECT given.peer, given.log_id, given.epoch, given.sequence, coalesce(ch.guild_id, given.log_id) AS guild_id
    FROM given LEFT JOIN channels AS ch ON ch.channel_id = given.log_id
    WHERE NOT EXISTS (SELECT FROM federation_cursors AS c WHERE c.peer = given.peer AND c.log_id = given.log_id)
), mirrored AS (
    SELECT peer, guild_id FROM federation_guilds
    WHERE (peer, guild_id) IN (SELECT peer, guild_id FROM wanted) AND purged_at IS NULL ORDER BY peer, guild_id FOR SHARE
), held AS (
    SELECT log_id FROM logs WHERE log_id IN (SELECT log_id FROM wanted JOIN mirrored USING (peer, guild_id))
    ORDER BY log_id FOR KEY SHARE
), moved AS (
    UPDATE federation_cursors AS c SET epoch = given.epoch, sequence = given.sequence
    FROM given WHERE c.peer = given.peer AND c.log_id = given.log_id
)
INSERT INTO federation_cursors (peer, log_id, epoch, sequence)
SELECT peer, log_id, epoch, sequence FROM wanted JOIN mirrored USING (peer, guild_id) JOIN held USING (log_id)
ON CONFLICT (peer, log_id) DO UPDATE SET epoch = EXCLUDED.epoch, sequence = EXCLUDED.sequence
"""

# Each process has a row, under a name that no server can have, so that processes can be counted.
PROCESS = "process "
TAKE_LEASES = f"""
WITH part AS (
    INSERT INTO federation_leases AS l (peer, holder, until) VALUES ('{PROCESS}' || $2::text, $2, $4::timestamptz)
    ON CONFLICT (peer) DO UPDATE SET until = EXCLUDED.until
), ended AS (
    DELETE FROM federation_leases WHERE peer LIKE '{PROCESS}%' AND holder <> $2
    AND (until < $3::timestamptz - interval '1 hour' OR until > $7::timestamptz)
), wanted AS (
    SELECT peer FROM unnest($1::text[]) AS peer
    UNION (
        SELECT given.peer FROM unnest($5::text[]) WITH ORDINALITY AS given (peer, place) WHERE NOT EXISTS (
            SELECT FROM federation_leases AS l WHERE l.peer = given.peer AND l.holder <> $2
            AND l.until BETWEEN $3 AND $7
        ) ORDER BY given.place LIMIT $6
    )
), taken AS (
    INSERT INTO federation_leases AS l (peer, holder, until) SELECT peer, $2, $4 FROM wanted ORDER BY peer
    ON CONFLICT (peer) DO UPDATE SET holder = EXCLUDED.holder, until = EXCLUDED.until
    WHERE l.holder = EXCLUDED.holder OR l.until NOT BETWEEN $3 AND $7 RETURNING peer
)
SELECT coalesce((SELECT array_agg(peer) FROM taken), '{{}}') AS peers, 1 + (
    SELECT count(*) FROM federation_leases WHERE peer LIKE '{PROCESS}%' AND holder <> $2 AND until BETWEEN $3 AND $7
) AS holders
"""


@performs(FindBehind, Mode.QUERY)
async def find_behind(connection: Connection, effect: FindBehind) -> tuple[BehindLog, ...]:
    past = effect.past or (None, None)
    rows = await connection.fetch(FIND_BEHIND, effect.peer, effect.limit, *past, effect.level)
    return tuple(_behind(row) for row in rows)


def _behind(row: Row) -> BehindLog:
    head = LogPosition(str(row["log_id"]), row["epoch"], row["head"])
    return BehindLog(str(row["guild_id"]), head, row["after"], row["cursor_epoch"], row["ends"])


@performs(FindAffectedPeers, Mode.QUERY)
async def find_affected_peers(connection: Connection, effect: FindAffectedPeers) -> AffectedPeers:
    rows = await connection.fetch(FIND_WOKEN, effect.log_ids, effect.holder)
    mirrored = [row for row in rows if row["peer"] is None]
    return AffectedPeers(
        tuple((row["peer"], _behind(row)) for row in rows if row["peer"] is not None and row["log_id"] is not None),
        tuple(sorted(str(row["log_id"]) for row in mirrored)),
        elsewhere=any(row["ends"] for row in mirrored),
        free=any(row["free"] for row in mirrored),
        ended=tuple(sorted({row["peer"] for row in rows if row["log_id"] is None})),
    )


@performs(MoveCursors, Mode.CHANGE)
async def move_cursors(connection: Connection, effect: MoveCursors) -> None:
    places = [move.place for move in effect.moves]
    await connection.execute(
        MOVE_CURSORS,
        [move.peer for move in effect.moves],
        [place.log_id for place in places],
        [place.epoch for place in places],
        [place.sequence for place in places],
    )


@performs(FindMirrored, Mode.QUERY)
async def find_mirrored(connection: Connection, effect: FindMirrored) -> MirroredLog | None:
    row = await connection.fetchrow(
        """
        SELECT m.guild_id, l.epoch, l.head_sequence FROM logs AS l LEFT JOIN channels AS c ON c.channel_id = l.log_id
        JOIN federation_guilds AS m ON m.peer = $1 AND m.guild_id = coalesce(c.guild_id, l.log_id)
        WHERE l.log_id = $2 AND m.ended_at IS NULL
        """,
        effect.peer,
        effect.log_id,
    )
    if row is None:
        return None
    return MirroredLog(str(row["guild_id"]), LogPosition(effect.log_id, row["epoch"], row["head_sequence"]))


@performs(FindMirroring, Mode.QUERY)
async def find_mirroring(connection: Connection, effect: FindMirroring) -> tuple[str, ...]:
    rows = await connection.fetch(
        'SELECT DISTINCT peer COLLATE "C" AS peer FROM federation_guilds WHERE purged_at IS NULL ORDER BY 1'
    )
    return texts(row["peer"] for row in rows)


@performs(FindEnded, Mode.QUERY)
async def find_ended(connection: Connection, effect: FindEnded) -> tuple[LogPosition, ...]:
    rows = await connection.fetch(
        """
        SELECT m.guild_id, coalesce(l.epoch, 0) AS epoch, coalesce(m.last_sequence, 0) AS sequence
        FROM federation_guilds AS m LEFT JOIN logs AS l ON l.log_id = m.guild_id
        LEFT JOIN federation_cursors AS c ON c.peer = m.peer AND c.log_id = m.guild_id
        WHERE m.peer = $1 AND m.ended_at IS NOT NULL AND m.purged_at IS NULL
          AND (l.log_id IS NULL OR coalesce(c.sequence, 0) >= coalesce(m.last_sequence, 0))
        ORDER BY m.guild_id
        """,
        effect.peer,
    )
    return tuple(LogPosition(str(row["guild_id"]), row["epoch"], row["sequence"]) for row in rows)


@performs(NotePurged, Mode.TRANSACTION)
async def note_purged(transaction: Transaction, effect: NotePurged) -> None:
    """Mark mirrors as purged, and delete their cursors. The second statement sees rows inserted before the first got its locks."""
    purged = await transaction.connection.fetch(
        """
        UPDATE federation_guilds SET purged_at = $3
        WHERE peer = $1 AND guild_id = ANY ($2::uuid[]) AND ended_at <= $3 AND purged_at IS NULL RETURNING guild_id
        """,
        effect.peer,
        effect.guild_ids,
        moment(effect.now_ms),
    )
    await transaction.connection.execute(
        """
        DELETE FROM federation_cursors WHERE peer = $1 AND log_id IN (
            SELECT unnest($2::uuid[]) UNION ALL SELECT channel_id FROM channels WHERE guild_id = ANY ($2::uuid[])
        )
        """,
        effect.peer,
        [row["guild_id"] for row in purged],
    )


@performs(TakeLeases, Mode.CHANGE)
async def take_leases(connection: Connection, effect: TakeLeases) -> Leases:
    """Take leases in the order of the peers, so that concurrent calls do not deadlock."""
    row = await connection.fetchrow(
        TAKE_LEASES,
        effect.peers,
        effect.holder,
        moment(effect.now_ms),
        moment(effect.until_ms),
        effect.others,
        effect.at_most,
        moment(effect.latest_ms),
    )
    return Leases(tuple(sorted(row["peers"])), row["holders"]) if row is not None else Leases((), 1)


@performs(LeaveLeases, Mode.CHANGE)
async def leave_leases(connection: Connection, effect: LeaveLeases) -> None:
    await connection.execute(
        "DELETE FROM federation_leases WHERE holder = $1 AND ($2::text[] IS NULL OR peer = ANY ($2))",
        effect.holder,
        effect.peers,
    )

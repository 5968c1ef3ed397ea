"""Posts whose author's right is decided in the transaction that stores them. Expands only: v2 and v1 of the append stay."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# As append_events_v2, but for the authors: their rows are held first, as everywhere (users, then channels), and what they
# may do is read after that, by the statement that stores. `permitted`: the roles that may post. `overseers`: the server
# roles that need no membership. An event without an author is not decided about. A refused row tells what it was
# refused on.
APPEND = """
CREATE FUNCTION append_events_v3(
    channel_ids uuid[], sender_ids text[], event_ids text[], event_types text[], canonicals bytea[], wires bytea[],
    nonces text[], fingerprints bytea[], moments timestamptz[], authors uuid[], sessions uuid[],
    permitted text[], overseers text[]
) RETURNS TABLE (
    place bigint, sequence bigint, stored boolean, event_id text, fingerprint bytea, wire bytea, created_at timestamptz,
    refused boolean, living boolean, guild_role text, channel_role text, server_roles text[]
) LANGUAGE sql VOLATILE AS $function$
SELECT FROM users WHERE user_id = ANY (authors) ORDER BY user_id FOR KEY SHARE;

SELECT FROM channels WHERE channel_id = ANY (channel_ids) ORDER BY channel_id FOR NO KEY UPDATE;

WITH given AS (
    SELECT channel_id, sender_id, event_id, event_type, canonical, wire, nonce, fingerprint, created_at, author, session,
        place
    FROM unnest(
        channel_ids, sender_ids, event_ids, event_types, canonicals, wires, nonces, fingerprints, moments, authors, sessions
    ) WITH ORDINALITY AS row (
        channel_id, sender_id, event_id, event_type, canonical, wire, nonce, fingerprint, created_at, author, session, place
    )
), judged AS MATERIALIZED (
    SELECT given.channel_id, given.sender_id, given.event_id, given.event_type, given.canonical, given.wire, given.nonce,
        given.fingerprint, given.created_at, given.author, given.place, c.head_sequence,
        g.role AS guild_role, m.role AS channel_role, given.session IS NULL OR f.family_id IS NOT NULL AS living,
        given.author IS NULL OR ((given.session IS NULL OR f.family_id IS NOT NULL) AND (
            coalesce(g.role = ANY (permitted), false) OR coalesce(m.role = ANY (permitted), false) OR EXISTS (
                SELECT FROM user_roles AS r WHERE r.user_id = given.author AND r.role = ANY (permitted)
                AND (g.role IS NOT NULL OR m.role IS NOT NULL OR r.role = ANY (overseers))
            )
        )) AS admitted
    FROM given JOIN channels AS c USING (channel_id)
    LEFT JOIN guild_memberships AS g ON g.guild_id = c.guild_id AND g.user_id = given.author
    LEFT JOIN channel_memberships AS m ON m.channel_id = c.channel_id AND m.user_id = given.author
    LEFT JOIN sessions AS s ON s.session_id = given.session AND s.user_id = given.author
    LEFT JOIN refresh_families AS f ON f.family_id = s.family_id AND f.revoked_at IS NULL
), known AS (
    SELECT judged.place, e.sequence, e.event_id, e.fingerprint, e.wire, e.created_at,
        e.channel_id = judged.channel_id AS here
    FROM judged, LATERAL (
        SELECT e.channel_id, e.sequence, e.event_id, e.fingerprint, e.wire, e.created_at FROM channel_events AS e
        WHERE e.channel_id = judged.channel_id AND e.sender_id = judged.sender_id AND e.nonce = judged.nonce
        UNION ALL
        SELECT e.channel_id, e.sequence, e.event_id, e.fingerprint, e.wire, e.created_at FROM channel_events AS e
        WHERE e.event_id = judged.event_id
        LIMIT 1
    ) AS e
    WHERE judged.admitted
), fresh AS (
    SELECT channel_id, sender_id, event_id, event_type, canonical, wire, nonce, fingerprint, created_at, place,
        head_sequence + row_number() OVER (PARTITION BY channel_id ORDER BY place) AS sequence
    FROM judged WHERE admitted AND NOT EXISTS (SELECT FROM known WHERE known.place = judged.place)
), raised AS (
    UPDATE channels AS c SET head_sequence = last.sequence
    FROM (SELECT channel_id, max(sequence) AS sequence FROM fresh GROUP BY channel_id) AS last
    WHERE c.channel_id = last.channel_id
), inserted AS (
    INSERT INTO channel_events
        (channel_id, sequence, event_id, event_type, sender_id, canonical, wire, body, nonce, fingerprint, created_at)
    SELECT channel_id, sequence, event_id, event_type, sender_id, canonical, wire,
        convert_from(wire, 'UTF8')::jsonb, nonce, fingerprint, created_at
    FROM fresh
)
SELECT place, sequence, true, NULL::text, NULL::bytea, NULL::bytea, NULL::timestamptz,
    false, NULL::boolean, NULL::text, NULL::text, NULL::text[] FROM fresh
UNION ALL
SELECT place, CASE WHEN here THEN sequence END, false, event_id, fingerprint, wire, created_at,
    false, NULL, NULL, NULL, NULL FROM known
UNION ALL
SELECT place, NULL, false, NULL, NULL, NULL, NULL, true, living, guild_role, channel_role,
    ARRAY(SELECT r.role FROM user_roles AS r WHERE r.user_id = judged.author) FROM judged WHERE NOT admitted
$function$
"""


def upgrade() -> None:
    op.execute(APPEND.strip())

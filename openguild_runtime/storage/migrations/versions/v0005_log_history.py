"""Which history of the database the epochs belong to, the oldest release that this schema serves, and appends by named columns.

Expands only: the release before looks at none of it.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

HISTORY = """
CREATE TABLE log_history (
    single   boolean PRIMARY KEY DEFAULT true CHECK (single),
    lineage  text,
    renewals bigint NOT NULL DEFAULT 0
);
COMMENT ON COLUMN log_history.lineage IS 'cluster and timeline for which the channels have their epochs; NULL: not recorded yet';
COMMENT ON COLUMN log_history.renewals IS 'how often every channel was given a new epoch';
INSERT INTO log_history DEFAULT VALUES;
"""

# A step that contracts raises `serves_from` in its own transaction, so that releases which it breaks refuse to serve.
SERVES = """
CREATE TABLE schema_serves (
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    serves_from text NOT NULL
);
COMMENT ON COLUMN schema_serves.serves_from IS 'releases whose own newest step is this one or later work with this schema';
INSERT INTO schema_serves (serves_from) VALUES ('0001');
"""

# As append_events_v1, but it names every column: one that a later release adds, of whatever type, changes nothing.
APPEND = """
CREATE FUNCTION append_events_v2(
    channel_ids uuid[], sender_ids text[], event_ids text[], event_types text[], canonicals bytea[], wires bytea[],
    nonces text[], fingerprints bytea[], moments timestamptz[]
) RETURNS TABLE (
    place bigint, sequence bigint, stored boolean, event_id text, fingerprint bytea, wire bytea, created_at timestamptz
) LANGUAGE sql VOLATILE AS $function$
SELECT FROM channels WHERE channel_id = ANY (channel_ids) ORDER BY channel_id FOR NO KEY UPDATE;

WITH given AS (
    SELECT channel_id, sender_id, event_id, event_type, canonical, wire, nonce, fingerprint, created_at, place FROM unnest(
        channel_ids, sender_ids, event_ids, event_types, canonicals, wires, nonces, fingerprints, moments
    ) WITH ORDINALITY AS row (
        channel_id, sender_id, event_id, event_type, canonical, wire, nonce, fingerprint, created_at, place
    )
), known AS (
    SELECT given.place, e.sequence, e.event_id, e.fingerprint, e.wire, e.created_at, e.channel_id = given.channel_id AS here
    FROM given, LATERAL (
        SELECT e.channel_id, e.sequence, e.event_id, e.fingerprint, e.wire, e.created_at FROM channel_events AS e
        WHERE e.channel_id = given.channel_id AND e.sender_id = given.sender_id AND e.nonce = given.nonce
        UNION ALL
        SELECT e.channel_id, e.sequence, e.event_id, e.fingerprint, e.wire, e.created_at FROM channel_events AS e
        WHERE e.event_id = given.event_id
        LIMIT 1
    ) AS e
), fresh AS (
    SELECT given.channel_id, given.sender_id, given.event_id, given.event_type, given.canonical, given.wire, given.nonce,
        given.fingerprint, given.created_at, given.place,
        c.head_sequence + row_number() OVER (PARTITION BY given.channel_id ORDER BY given.place) AS sequence
    FROM given JOIN channels AS c USING (channel_id)
    WHERE NOT EXISTS (SELECT FROM known WHERE known.place = given.place)
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
SELECT place, sequence, true, NULL::text, NULL::bytea, NULL::bytea, NULL::timestamptz FROM fresh
UNION ALL
SELECT place, CASE WHEN here THEN sequence END, false, event_id, fingerprint, wire, created_at FROM known
$function$;
"""


def upgrade() -> None:
    for part in (HISTORY, SERVES):
        for statement in part.split(";\n"):
            if statement.strip():
                op.execute(statement.strip())
    op.execute(APPEND.strip().removesuffix(";"))

"""Posts whose author's right is decided in the transaction that stores them. Expands only: v2 and v1 of the append stay."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# As append_events_v2, but for the authors: their rows are held first, as everywhere (users, then channels), and what
# they may do is read after that. `permitted`: the roles that may post. `overseers`: the server roles that need no
# membership. An event without an author is not decided about. A refused row tells what it was refused on.
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
), held AS (
    SELECT given.place,
        EXISTS (SELECT FROM users AS u WHERE u.user_id = given.author) AND (given.session IS NULL OR EXISTS (
            SELECT FROM sessions AS s JOIN refresh_families AS f USING (family_id)
            WHERE s.session_id = given.session AND s.user_id = given.author AND f.revoked_at IS NULL
        )) AS living,
        (SELECT m.role FROM guild_memberships AS m
            WHERE m.guild_id = c.guild_id AND m.user_id = given.author) AS guild_role,
        (SELECT m.role FROM channel_memberships AS m
            WHERE m.channel_id = given.channel_id AND m.user_id = given.author) AS channel_role,
        ARRAY(SELECT r.role FROM user_roles AS r WHERE r.user_id = given.author ORDER BY r.granted_at, r.role) AS server_roles
    FROM given JOIN channels AS c USING (channel_id) WHERE given.author IS NOT NULL
), turned_away AS (
    SELECT place, living, guild_role, channel_role, server_roles FROM held WHERE NOT (living AND (
        coalesce(guild_role = ANY (permitted), false) OR coalesce(channel_role = ANY (permitted), false)
        OR (server_roles && permitted
            AND (guild_role IS NOT NULL OR channel_role IS NOT NULL OR server_roles && overseers))
    ))
), admitted AS (
    SELECT channel_id, sender_id, event_id, event_type, canonical, wire, nonce, fingerprint, created_at, place
    FROM given WHERE NOT EXISTS (SELECT FROM turned_away WHERE turned_away.place = given.place)
), known AS (
    SELECT admitted.place, e.sequence, e.event_id, e.fingerprint, e.wire, e.created_at,
        e.channel_id = admitted.channel_id AS here
    FROM admitted, LATERAL (
        SELECT e.channel_id, e.sequence, e.event_id, e.fingerprint, e.wire, e.created_at FROM channel_events AS e
        WHERE e.channel_id = admitted.channel_id AND e.sender_id = admitted.sender_id AND e.nonce = admitted.nonce
        UNION ALL
        SELECT e.channel_id, e.sequence, e.event_id, e.fingerprint, e.wire, e.created_at FROM channel_events AS e
        WHERE e.event_id = admitted.event_id
        LIMIT 1
    ) AS e
), fresh AS (
    SELECT admitted.channel_id, admitted.sender_id, admitted.event_id, admitted.event_type, admitted.canonical,
        admitted.wire, admitted.nonce, admitted.fingerprint, admitted.created_at, admitted.place,
        c.head_sequence + row_number() OVER (PARTITION BY admitted.channel_id ORDER BY admitted.place) AS sequence
    FROM admitted JOIN channels AS c USING (channel_id)
    WHERE NOT EXISTS (SELECT FROM known WHERE known.place = admitted.place)
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
SELECT place, NULL, false, NULL, NULL, NULL, NULL, true, living, guild_role, channel_role, server_roles FROM turned_away
$function$
"""


def upgrade() -> None:
    op.execute(APPEND.strip())

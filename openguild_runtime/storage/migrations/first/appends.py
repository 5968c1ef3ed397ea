"""The function that stores a batch of posts, and the parts that it shares with the functions of changes.py.

A function runs several statements in one round trip. A volatile function takes a new snapshot for each statement, so that
statements see everything committed before the locks were acquired. Users are locked before logs, both in the order of their
IDs, as everywhere. Rows are looked up with LATERAL and LIMIT, which leaves PostgreSQL no choice of plans.
"""

from openguild_runtime.storage.migrations.first.timeouts import channel_role_now, guild_role_now

LOCKS = """
PERFORM FROM users WHERE user_id = ANY (authors) ORDER BY user_id FOR KEY SHARE;
PERFORM FROM logs WHERE log_id = ANY (log_ids) ORDER BY log_id FOR NO KEY UPDATE;
""".strip()

# The input of the decision about each given row: its channel, the author's roles and session, and a stored repeat.
_IN_GUILD = guild_role_now("role", guild="c.guild_id", user="given.author")
_IN_CHANNEL = channel_role_now("role", guild="c.guild_id", user="given.author")
JUDGED = (
    """
FROM given JOIN logs AS l USING (log_id) JOIN channels AS c ON c.channel_id = given.log_id
LEFT JOIN LATERAL (
    SELECT {GUILD_ROLE} AS role FROM guild_memberships WHERE guild_id = c.guild_id AND user_id = given.author LIMIT 1
) AS g ON true
LEFT JOIN LATERAL (
    SELECT {CHANNEL_ROLE} AS role FROM channel_memberships WHERE channel_id = c.channel_id AND user_id = given.author LIMIT 1
) AS m ON true
LEFT JOIN sessions AS x ON x.session_id = given.session AND x.user_id = given.author
LEFT JOIN LATERAL (
    SELECT family_id, revoked_at FROM refresh_families WHERE family_id = x.family_id LIMIT 1
) AS f ON f.revoked_at IS NULL
LEFT JOIN LATERAL (
    SELECT e.sequence, e.event_id, e.fingerprint, e.wire, e.created_at FROM log_events AS e
    WHERE e.log_id = {log} AND e.sender_id = given.sender_id AND e.nonce = given.nonce
    UNION ALL
    SELECT e.sequence, e.event_id, e.fingerprint, e.wire, e.created_at FROM log_events AS e
    WHERE e.log_id = {log} AND e.event_id = given.event_id
    LIMIT 1
) AS known ON true
""".strip()
    .replace("{GUILD_ROLE}", _IN_GUILD)
    .replace("{CHANNEL_ROLE}", _IN_CHANNEL)
)

# Whether the author of the row has one of the roles `permitted` and a valid session.
ADMITTED = """
given.author IS NULL OR (c.origin IS NULL AND (given.session IS NULL OR f.family_id IS NOT NULL) AND (
            coalesce(g.role = ANY (permitted), false) OR coalesce(m.role = ANY (permitted), false) OR EXISTS (
                SELECT FROM user_roles AS r WHERE r.user_id = given.author AND r.role = ANY (permitted)
                AND (g.role IS NOT NULL OR m.role IS NOT NULL OR r.role = ANY (overseers))
            )
        ))
""".strip()


def by_log(query: str) -> str:
    """Return statements that run `query`, with a variant for events of a single log, for which PostgreSQL opens one partition."""
    one, several = query.strip().replace("{log}", "log_ids[1]"), query.strip().replace("{log}", "given.log_id")
    return f"IF log_ids[1] = ALL (log_ids) THEN\n{one}\nELSE\n{several}\nEND IF;"


def filled(function: str, **parts: str) -> str:
    """Return the SQL with each `{NAME}` replaced by the part of that name."""
    for name, part in parts.items():
        function = function.replace(f"{{{name}}}", part)
    return function


_APPEND = """
RETURN QUERY WITH given AS (
    SELECT log_id, sender_id, event_id, event_type, wire, nonce, fingerprint, created_at, author, session, place
    FROM unnest(
        log_ids, sender_ids, event_ids, event_types, wires, nonces, fingerprints, moments, authors, sessions
    ) WITH ORDINALITY AS row (
        log_id, sender_id, event_id, event_type, wire, nonce, fingerprint, created_at, author, session, place
    )
), judged AS MATERIALIZED (
    SELECT given.log_id, given.sender_id, given.event_id, given.event_type, given.wire, given.nonce,
        given.fingerprint, given.created_at, given.author, given.place, l.head_sequence, l.message_count,
        g.role AS guild_role, m.role AS channel_role, given.session IS NULL OR f.family_id IS NOT NULL AS living,
        {ADMITTED} AS admitted,
        known.sequence AS known_sequence, known.event_id AS known_event_id, known.fingerprint AS known_fingerprint,
        known.wire AS known_wire, known.created_at AS known_created_at
    {JUDGED}
), fresh AS (
    SELECT log_id, sender_id, event_id, event_type, wire, nonce, fingerprint, created_at, author, place,
        head_sequence + row_number() OVER of_log AS sequence,
        message_count + count(*) FILTER (WHERE event_type = 'message') OVER of_log AS message_number
    FROM judged WHERE admitted AND known_sequence IS NULL
    WINDOW of_log AS (PARTITION BY log_id ORDER BY place)
), raised AS (
    UPDATE logs AS l SET head_sequence = last.sequence, message_count = last.message_number
    FROM (
        SELECT log_id, max(sequence) AS sequence, max(message_number) AS message_number FROM fresh GROUP BY log_id
    ) AS last
    WHERE l.log_id = last.log_id
), own AS (
    INSERT INTO channel_read_state AS s (channel_id, user_id, own_since, updated_at)
    SELECT log_id, author, count(*), max(created_at) FROM fresh
    WHERE event_type = 'message' AND author IS NOT NULL GROUP BY log_id, author ORDER BY log_id, author
    ON CONFLICT (channel_id, user_id) DO UPDATE SET own_since = s.own_since + EXCLUDED.own_since
), inserted AS (
    INSERT INTO log_events
        (log_id, sequence, event_id, event_type, sender_id, wire, nonce, fingerprint, message_number, created_at)
    SELECT log_id, sequence, event_id, event_type, sender_id, wire, nonce, fingerprint, message_number, created_at
    FROM fresh
)
SELECT place, sequence, true, NULL::text, NULL::bytea, NULL::bytea, NULL::timestamptz,
    false, NULL::boolean, NULL::text, NULL::text, NULL::text[] FROM fresh
UNION ALL
SELECT place, known_sequence, false, known_event_id, known_fingerprint, known_wire, known_created_at,
    false, NULL, NULL, NULL, NULL FROM judged WHERE admitted AND known_sequence IS NOT NULL
UNION ALL
SELECT place, NULL, false, NULL, NULL, NULL, NULL, true, living, guild_role, channel_role,
    ARRAY(SELECT r.role FROM user_roles AS r WHERE r.user_id = judged.author) FROM judged WHERE NOT admitted;
"""

# No two rows of a call share a nonce or an event ID. `permitted` are the roles that may post, `overseers` the server roles that
# need no membership. Events without an author are always permitted. A refused row has the values it was refused for.
APPEND = filled(
    """
CREATE FUNCTION append_posts_v1(
    log_ids uuid[], sender_ids text[], event_ids text[], event_types text[], wires bytea[],
    nonces text[], fingerprints bytea[], moments timestamptz[], authors uuid[], sessions uuid[],
    permitted text[], overseers text[]
) RETURNS TABLE (
    place bigint, sequence bigint, stored boolean, event_id text, fingerprint bytea, wire bytea, created_at timestamptz,
    refused boolean, living boolean, guild_role text, channel_role text, server_roles text[]
) LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
BEGIN
{LOCKS}
{QUERY}
END
$function$
""",
    QUERY=by_log(filled(_APPEND, JUDGED=JUDGED, ADMITTED=ADMITTED)),
    LOCKS=LOCKS,
)

"""The function that stores a batch of posts, and those that store a batch with changes of messages: judge, then write.

Each is one round trip of several statements. Each statement sees what was committed before it, because a volatile function
takes a snapshot for each, so it sees everything that was committed before the locks were got. Users are locked before logs,
both in the order of their ids, as everywhere. A row is looked up by LATERAL and LIMIT, which leaves PostgreSQL one way.
"""

# What the decision about each given row rests on: its channel, the author's roles and session, and a stored repeat.
JUDGED = """
FROM given JOIN logs AS l USING (log_id) JOIN channels AS c ON c.channel_id = given.log_id
LEFT JOIN LATERAL (
    SELECT role FROM guild_memberships WHERE guild_id = c.guild_id AND user_id = given.author LIMIT 1
) AS g ON true
LEFT JOIN LATERAL (
    SELECT role FROM channel_memberships WHERE channel_id = c.channel_id AND user_id = given.author LIMIT 1
) AS m ON true
LEFT JOIN sessions AS x ON x.session_id = given.session AND x.user_id = given.author
LEFT JOIN refresh_families AS f ON f.family_id = x.family_id AND f.revoked_at IS NULL
LEFT JOIN LATERAL (
    SELECT e.sequence, e.event_id, e.fingerprint, e.wire, e.created_at FROM log_events AS e
    WHERE e.log_id = given.log_id AND e.sender_id = given.sender_id AND e.nonce = given.nonce
    UNION ALL
    SELECT e.sequence, e.event_id, e.fingerprint, e.wire, e.created_at FROM log_events AS e
    WHERE e.log_id = given.log_id AND e.event_id = given.event_id
    LIMIT 1
) AS known ON true
""".strip()

# No two rows of a call share a nonce or an event id. `permitted`: the roles that may post. `overseers`: the server roles that
# need no membership. An event without an author is not decided about. A refused row tells what it was refused on.
APPEND = """
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
PERFORM FROM users WHERE user_id = ANY (authors) ORDER BY user_id FOR KEY SHARE;
PERFORM FROM logs WHERE log_id = ANY (log_ids) ORDER BY log_id FOR NO KEY UPDATE;
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
        given.author IS NULL OR ((given.session IS NULL OR f.family_id IS NOT NULL) AND (
            coalesce(g.role = ANY (permitted), false) OR coalesce(m.role = ANY (permitted), false) OR EXISTS (
                SELECT FROM user_roles AS r WHERE r.user_id = given.author AND r.role = ANY (permitted)
                AND (g.role IS NOT NULL OR m.role IS NOT NULL OR r.role = ANY (overseers))
            )
        )) AS admitted,
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
END
$function$
""".replace("{JUDGED}", JUDGED)

# What the decisions about a batch rest on, one row for each of its events whose channel is there. `targets`: event ids of
# the messages that they change. `emojis`: where the event is a reaction. `redacts`: where the target's texts are to go.
# `pins_asked`: where the channel's pins matter; `> '-infinity'`, or the index of pins is not chosen while there are none.
JUDGE = """
CREATE FUNCTION judge_changes_v1(
    log_ids uuid[], sender_ids text[], event_ids text[], nonces text[], authors uuid[], sessions uuid[],
    targets text[], emojis text[], redacts boolean[], pins_asked boolean[]
) RETURNS TABLE (
    place bigint, head_sequence bigint, message_count bigint, pins bigint,
    living boolean, guild_role text, channel_role text, server_roles text[],
    known_sequence bigint, known_event_id text, known_fingerprint bytea, known_wire bytea, known_created_at timestamptz,
    sequence bigint, event_id text, author_id text, created_at timestamptz, edited_text text, edited_at timestamptz,
    versions integer, redacted_by text, pinned_at timestamptz, replies bigint, reactions jsonb,
    has_reacted boolean, text_sequences bigint[], text_wires bytea[]
) LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
BEGIN
PERFORM FROM users WHERE user_id = ANY (authors) ORDER BY user_id FOR KEY SHARE;
PERFORM FROM logs WHERE log_id = ANY (log_ids) ORDER BY log_id FOR NO KEY UPDATE;
RETURN QUERY WITH given AS (
    SELECT log_id, sender_id, event_id, nonce, author, session, target, emoji, redacts, pinning, place
    FROM unnest(log_ids, sender_ids, event_ids, nonces, authors, sessions, targets, emojis, redacts, pins_asked)
    WITH ORDINALITY AS row (log_id, sender_id, event_id, nonce, author, session, target, emoji, redacts, pinning, place)
)
SELECT given.place, l.head_sequence, l.message_count, CASE WHEN given.pinning THEN (
        SELECT count(*) FROM message_states AS p WHERE p.log_id = given.log_id AND p.pinned_at > '-infinity'
    ) END,
    given.session IS NULL OR f.family_id IS NOT NULL, g.role, m.role,
    ARRAY(SELECT r.role FROM user_roles AS r WHERE r.user_id = given.author),
    known.sequence, known.event_id, known.fingerprint, known.wire, known.created_at,
    t.sequence, t.event_id, t.sender_id, t.created_at, s.edited_text, s.edited_at,
    s.versions, s.redacted_by, s.pinned_at, s.replies, s.reactions,
    given.emoji IS NOT NULL AND EXISTS (
        SELECT FROM reactions AS r WHERE r.log_id = given.log_id AND r.message = t.sequence AND r.emoji = given.emoji
        AND r.user_id = given.sender_id
    ),
    CASE WHEN given.redacts THEN t.sequence || ARRAY(
        SELECT e.sequence FROM log_events AS e
        WHERE e.log_id = given.log_id AND e.event_type = 'message.edited' AND e.target = t.sequence ORDER BY e.sequence
    ) END,
    CASE WHEN given.redacts THEN t.wire || ARRAY(
        SELECT e.wire FROM log_events AS e
        WHERE e.log_id = given.log_id AND e.event_type = 'message.edited' AND e.target = t.sequence ORDER BY e.sequence
    ) END
{JUDGED}
LEFT JOIN LATERAL (
    SELECT e.log_id, e.sequence, e.event_id, e.event_type, e.sender_id, e.wire, e.created_at FROM log_events AS e
    WHERE e.log_id = given.log_id AND e.event_id = given.target LIMIT 1
) AS t ON t.event_type = 'message'
LEFT JOIN LATERAL (
    SELECT p.edited_text, p.edited_at, p.versions, p.redacted_by, p.pinned_at, p.replies, p.reactions FROM message_states AS p
    WHERE p.log_id = given.log_id AND p.sequence = t.sequence LIMIT 1
) AS s ON true;
END
$function$
""".replace("{JUDGED}", JUDGED)

# Four tables in columns: the events, the states that messages have now, reactions that came or went, and events whose text
# is gone. Under the locks of `judge_changes_v1`, in its transaction.
WRITE = """
CREATE FUNCTION write_changes_v1(
    log_ids uuid[], sequences bigint[], event_ids text[], event_types text[], sender_ids text[], wires bytea[],
    nonces text[], fingerprints bytea[], message_numbers bigint[], targets bigint[], moments timestamptz[], authors uuid[],
    state_logs uuid[], state_sequences bigint[], state_event_ids text[], state_author_ids text[],
    state_moments timestamptz[], edited_texts text[], edited_ats timestamptz[], state_versions integer[],
    redacted_bys text[], pinned_ats timestamptz[], state_replies bigint[], state_reactions text[],
    reaction_logs uuid[], reaction_messages bigint[], reaction_emojis text[], reaction_users text[], reaction_adds boolean[],
    gone_logs uuid[], gone_sequences bigint[], gone_wires bytea[]
) RETURNS void LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
BEGIN
WITH fresh AS (
    SELECT log_id, sequence, event_id, event_type, sender_id, wire, nonce, fingerprint, message_number, target, created_at,
        author
    FROM unnest(
        log_ids, sequences, event_ids, event_types, sender_ids, wires, nonces, fingerprints, message_numbers, targets, moments,
        authors
    ) AS row (
        log_id, sequence, event_id, event_type, sender_id, wire, nonce, fingerprint, message_number, target, created_at,
        author
    )
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
)
INSERT INTO log_events
    (log_id, sequence, event_id, event_type, sender_id, wire, nonce, fingerprint, message_number, target, created_at)
SELECT log_id, sequence, event_id, event_type, sender_id, wire, nonce, fingerprint, message_number, target, created_at
FROM fresh;

INSERT INTO message_states AS s (
    log_id, sequence, event_id, author_id, created_at, edited_text, edited_at, versions, redacted_by, pinned_at, replies,
    reactions
)
SELECT log_id, sequence, event_id, author_id, created_at, edited_text, edited_at, versions, redacted_by, pinned_at, replies,
    reactions::jsonb
FROM unnest(
    state_logs, state_sequences, state_event_ids, state_author_ids, state_moments, edited_texts, edited_ats, state_versions,
    redacted_bys, pinned_ats, state_replies, state_reactions
) AS row (
    log_id, sequence, event_id, author_id, created_at, edited_text, edited_at, versions, redacted_by, pinned_at, replies,
    reactions
)
ON CONFLICT (log_id, sequence) DO UPDATE SET edited_text = EXCLUDED.edited_text, edited_at = EXCLUDED.edited_at,
    versions = EXCLUDED.versions, redacted_by = EXCLUDED.redacted_by, pinned_at = EXCLUDED.pinned_at,
    replies = EXCLUDED.replies, reactions = EXCLUDED.reactions;

IF cardinality(reaction_logs) > 0 THEN
    DELETE FROM reactions AS r
    USING unnest(reaction_logs, reaction_messages, reaction_emojis, reaction_users, reaction_adds)
        AS row (log_id, message, emoji, user_id, adds)
    WHERE NOT row.adds AND r.log_id = row.log_id AND r.message = row.message AND r.emoji = row.emoji
    AND r.user_id = row.user_id;
    INSERT INTO reactions (log_id, message, emoji, user_id) SELECT log_id, message, emoji, user_id
    FROM unnest(reaction_logs, reaction_messages, reaction_emojis, reaction_users, reaction_adds)
        AS row (log_id, message, emoji, user_id, adds)
    WHERE adds ON CONFLICT DO NOTHING;
END IF;

IF cardinality(gone_logs) > 0 THEN
    DELETE FROM mentions AS m USING unnest(gone_logs, gone_sequences) AS row (log_id, sequence)
    WHERE m.log_id = row.log_id AND m.sequence = row.sequence;
    DELETE FROM mentions_of_many AS m USING unnest(gone_logs, gone_sequences) AS row (log_id, sequence)
    WHERE m.log_id = row.log_id AND m.sequence = row.sequence;
    UPDATE log_events AS e SET wire = row.wire, fingerprint = substr(e.fingerprint, 1, 16)
    FROM unnest(gone_logs, gone_sequences, gone_wires) AS row (log_id, sequence, wire)
    WHERE e.log_id = row.log_id AND e.sequence = row.sequence;
    DELETE FROM reactions AS r
    USING unnest(state_logs, state_sequences, redacted_bys) AS row (log_id, sequence, redacted_by)
    WHERE row.redacted_by IS NOT NULL AND r.log_id = row.log_id AND r.message = row.sequence;
END IF;
END
$function$
"""

"""The functions that store a batch with changes of messages.

`append_changes_v1` stores a batch decided on messages read without locks, if they are unchanged. Otherwise `judge_changes_v1`
reads under locks, and `write_changes_v1` stores the batch decided on that, in the same transaction.
"""

from openguild_runtime.storage.migrations.first.appends import ADMITTED, JUDGED, LOCKS, by_log, filled

_JUDGE = """
RETURN QUERY WITH given AS (
    SELECT log_id, sender_id, event_id, nonce, author, session, target, emoji, redacts, pinning, place
    FROM unnest(log_ids, sender_ids, event_ids, nonces, authors, sessions, targets, emojis, redacts, pins_asked)
    WITH ORDINALITY AS row (log_id, sender_id, event_id, nonce, author, session, target, emoji, redacts, pinning, place)
)
SELECT given.place, l.head_sequence, l.message_count, CASE WHEN given.pinning THEN (
        SELECT count(*) FROM message_states AS p WHERE p.log_id = given.log_id AND p.pinned_at > '-infinity'
    ) END,
    c.origin IS NOT NULL, given.session IS NULL OR f.family_id IS NOT NULL, g.role, m.role,
    ARRAY(SELECT r.role FROM user_roles AS r WHERE r.user_id = given.author),
    known.sequence, known.event_id, known.fingerprint, known.wire, known.created_at,
    t.sequence, t.event_id, t.sender_id, t.created_at, s.edited_text, s.edited_at,
    s.versions, s.redacted_by, s.pinned_at, s.replies, s.reactions, s.crowded,
    own.reacted IS NOT NULL,
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
    WHERE e.log_id = {log} AND e.event_id = given.target LIMIT 1
) AS t ON t.event_type = 'message'
LEFT JOIN LATERAL (
    SELECT p.edited_text, p.edited_at, p.versions, p.redacted_by, p.pinned_at, p.replies, p.reactions, p.crowded
    FROM message_states AS p WHERE p.log_id = given.log_id AND p.sequence = t.sequence LIMIT 1
) AS s ON true
LEFT JOIN LATERAL (
    SELECT true AS reacted FROM reactions AS r WHERE r.log_id = given.log_id AND r.message = t.sequence
    AND r.emoji = given.emoji AND r.user_id = given.sender_id LIMIT 1
) AS own ON true;
"""

# The input of the decisions about a batch, one row for each event whose channel exists. `targets` are the event IDs of the
# changed messages, `emojis` those of reactions, `redacts` tells that the target's texts are removed, `pins_asked` that the
# channel's pins are needed. Without `> '-infinity'`, PostgreSQL does not use the index of pins while there are none.
JUDGE = filled(
    """
CREATE FUNCTION judge_changes_v1(
    log_ids uuid[], sender_ids text[], event_ids text[], nonces text[], authors uuid[], sessions uuid[],
    targets text[], emojis text[], redacts boolean[], pins_asked boolean[]
) RETURNS TABLE (
    place bigint, head_sequence bigint, message_count bigint, pins bigint,
    is_moved boolean, living boolean, guild_role text, channel_role text, server_roles text[],
    known_sequence bigint, known_event_id text, known_fingerprint bytea, known_wire bytea, known_created_at timestamptz,
    sequence bigint, event_id text, author_id text, created_at timestamptz, edited_text text, edited_at timestamptz,
    versions integer, redacted_by text, pinned_at timestamptz, replies bigint, reactions text, crowded boolean,
    has_reacted boolean, text_sequences bigint[], text_wires bytea[]
) LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
BEGIN
{LOCKS}
{QUERY}
END
$function$
""",
    QUERY=by_log(filled(_JUDGE, JUDGED=JUDGED)),
    LOCKS=LOCKS,
)

# Writes a batch, given `fresh`, its events with the changes of their targets.
_WRITTEN = """
raised AS (
    UPDATE logs AS l SET head_sequence = last.sequence, message_count = last.message_number
    FROM (
        SELECT log_id, max(sequence) AS sequence, max(message_number) AS message_number FROM fresh GROUP BY log_id
    ) AS last
    WHERE l.log_id = last.log_id
), stated AS (
    INSERT INTO message_states AS s (
        log_id, sequence, revision, edited_text, edited_at, versions, redacted_by, pinned_at, replies, reactions, crowded
    )
    SELECT log_id, target, sequence, edited_text, edited_at, versions, redacted_by, pinned_at, replies, reactions, crowded
    FROM fresh WHERE versions IS NOT NULL
    ON CONFLICT (log_id, sequence) DO UPDATE SET revision = EXCLUDED.revision, edited_text = EXCLUDED.edited_text,
        edited_at = EXCLUDED.edited_at, versions = EXCLUDED.versions, redacted_by = EXCLUDED.redacted_by,
        pinned_at = EXCLUDED.pinned_at, replies = EXCLUDED.replies, reactions = EXCLUDED.reactions,
        crowded = EXCLUDED.crowded
), inserted AS (
    INSERT INTO log_events
        (log_id, sequence, event_id, event_type, sender_id, wire, nonce, fingerprint, message_number, target, created_at)
    SELECT log_id, sequence, event_id, event_type, sender_id, wire, nonce, fingerprint, message_number, target, created_at
    FROM fresh
)
SELECT place, sequence FROM fresh;
""".strip()
_WRITTEN_BESIDE = """
IF 'message' = ANY (event_types) THEN
    INSERT INTO channel_read_state AS s (channel_id, user_id, own_since, updated_at)
    SELECT log_id, author, count(*), max(created_at) FROM unnest(log_ids, event_types, authors, moments)
        AS row (log_id, event_type, author, created_at)
    WHERE event_type = 'message' AND author IS NOT NULL GROUP BY log_id, author ORDER BY log_id, author
    ON CONFLICT (channel_id, user_id) DO UPDATE SET own_since = s.own_since + EXCLUDED.own_since;
END IF;
IF false = ANY (adds) THEN
    DELETE FROM reactions AS r USING unnest(log_ids, targets, emojis, sender_ids, adds)
        AS row (log_id, target, emoji, sender_id, adds)
    WHERE NOT row.adds AND r.log_id = row.log_id AND r.message = row.target AND r.emoji = row.emoji
    AND r.user_id = row.sender_id;
END IF;
IF true = ANY (adds) THEN
    INSERT INTO reactions (log_id, message, emoji, user_id)
    SELECT log_id, target, emoji, sender_id FROM unnest(log_ids, targets, emojis, sender_ids, adds)
        AS row (log_id, target, emoji, sender_id, adds)
    WHERE adds ON CONFLICT DO NOTHING;
END IF;
""".strip()

# The events. The last one to change a target has its new state, the last one about a reaction of the sender whether it exists.
_EVENTS = """
    log_ids uuid[], sequences bigint[], event_ids text[], event_types text[], sender_ids text[], wires bytea[],
    nonces text[], fingerprints bytea[], message_numbers bigint[], targets bigint[], moments timestamptz[], authors uuid[],
    edited_texts text[], edited_ats timestamptz[], states_versions integer[], redacted_bys text[], pinned_ats timestamptz[],
    states_replies bigint[], states_reactions text[], crowds boolean[], emojis text[], adds boolean[]
""".strip()
_ARRAYS = """
        log_ids, sequences, event_ids, event_types, sender_ids, wires, nonces, fingerprints, message_numbers, targets, moments,
        edited_texts, edited_ats, states_versions, redacted_bys, pinned_ats, states_replies, states_reactions, crowds
""".strip()
_OWN = """
event_id, event_type, sender_id, wire, nonce, fingerprint, target, created_at,
        edited_text, edited_at, versions, redacted_by, pinned_at, replies, reactions, crowded
""".strip()
_COLUMNS = """
        log_id, sequence, event_id, event_type, sender_id, wire, nonce, fingerprint, message_number, target, created_at,
        edited_text, edited_at, versions, redacted_by, pinned_at, replies, reactions, crowded
""".strip()
_PARTS = {
    "EVENTS": _EVENTS, "COLUMNS": _COLUMNS, "ARRAYS": _ARRAYS, "WRITTEN": _WRITTEN, "WRITTEN_BESIDE": _WRITTEN_BESIDE,
    "LOCKS": LOCKS, "JUDGED": JUDGED, "ADMITTED": ADMITTED,
    "GIVEN": ", ".join(f"given.{column.strip()}" for column in _OWN.split(",")),
}  # fmt: skip

_CHANGE = """
RETURN QUERY WITH given AS (
    SELECT {COLUMNS}, author, session, target_id, revision, place
    FROM unnest({ARRAYS}, authors, sessions, target_ids, revisions) WITH ORDINALITY
    AS row ({COLUMNS}, author, session, target_id, revision, place)
), judged AS MATERIALIZED (
    SELECT given.place, given.log_id, l.head_sequence + given.sequence AS sequence,
        l.message_count + given.message_number AS message_number, {GIVEN}
    {JUDGED}
    LEFT JOIN LATERAL (
        SELECT e.event_id FROM log_events AS e WHERE e.log_id = {log} AND e.sequence = given.target LIMIT 1
    ) AS t ON true
    LEFT JOIN LATERAL (
        SELECT p.revision FROM message_states AS p WHERE p.log_id = given.log_id AND p.sequence = given.target LIMIT 1
    ) AS s ON true
    WHERE known.sequence IS NULL AND (
        given.target IS NULL OR (t.event_id = given.target_id AND coalesce(s.revision, 0) = given.revision)
    ) AND ({ADMITTED})
), fresh AS (
    SELECT * FROM judged WHERE (SELECT count(*) FROM judged) = cardinality(log_ids)
), {WRITTEN}
"""

# Stores all, or returns no row. Sequences and message numbers are relative to the start of the batch. `revisions` are those of
# the targets at the time of the decision.
CHANGE = filled(
    """
CREATE FUNCTION append_changes_v1(
    {EVENTS},
    sessions uuid[], target_ids text[], revisions bigint[], permitted text[], overseers text[]
) RETURNS TABLE (place bigint, sequence bigint) LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
BEGIN
{LOCKS}
{QUERY}
IF NOT FOUND THEN
    RETURN;
END IF;
{WRITTEN_BESIDE}
END
$function$
""",
    QUERY=by_log(filled(_CHANGE, **_PARTS)),
    **_PARTS,
)

# Runs under the locks of `judge_changes_v1`, in its transaction. The second table has events whose text is removed, the third
# messages whose earlier reactions are removed, with one emoji or with all.
WRITE = filled(
    """
CREATE FUNCTION write_changes_v1(
    {EVENTS},
    gone_logs uuid[], gone_sequences bigint[], gone_wires bytea[],
    cleared_logs uuid[], cleared_messages bigint[], cleared_emojis text[]
) RETURNS TABLE (place bigint, sequence bigint) LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
BEGIN
RETURN QUERY WITH fresh AS (
    SELECT {COLUMNS}, place FROM unnest({ARRAYS}) WITH ORDINALITY AS row ({COLUMNS}, place)
), {WRITTEN}
IF cardinality(cleared_logs) > 0 THEN
    DELETE FROM reactions AS r USING unnest(cleared_logs, cleared_messages, cleared_emojis) AS row (log_id, message, emoji)
    WHERE r.log_id = row.log_id AND r.message = row.message AND (row.emoji IS NULL OR r.emoji = row.emoji);
END IF;
{WRITTEN_BESIDE}
IF cardinality(gone_logs) > 0 THEN
    DELETE FROM mentions AS m USING unnest(gone_logs, gone_sequences) AS row (log_id, sequence)
    WHERE m.log_id = row.log_id AND m.sequence = row.sequence;
    DELETE FROM mentions_of_many AS m USING unnest(gone_logs, gone_sequences) AS row (log_id, sequence)
    WHERE m.log_id = row.log_id AND m.sequence = row.sequence;
    UPDATE log_events AS e SET wire = row.wire, fingerprint = substr(e.fingerprint, 1, 16)
    FROM unnest(gone_logs, gone_sequences, gone_wires) AS row (log_id, sequence, wire)
    WHERE e.log_id = row.log_id AND e.sequence = row.sequence;
    DELETE FROM reactions AS r
    USING unnest(log_ids, targets, redacted_bys) AS row (log_id, target, redacted_by)
    WHERE row.redacted_by IS NOT NULL AND r.log_id = row.log_id AND r.message = row.target;
END IF;
END
$function$
""",
    **_PARTS,
)

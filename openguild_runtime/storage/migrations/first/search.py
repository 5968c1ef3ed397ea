"""The search index of messages, and the functions that maintain it and search (docs/architecture.md, "Search").

A document has the terms of the current text of a message, made by openguild_proto/policy/search.py. Posts are indexed from
the log soon afterwards; a search reads the events after `search_progress` itself. Writers of a log's documents hold its
advisory lock (`HOLD`): indexing only tries to lock it, a change of a message or the deletion of a log waits for it.
"""

TABLES = """
CREATE TABLE search_documents (
    log_id     uuid NOT NULL,
    sequence   bigint NOT NULL,
    created_at timestamptz NOT NULL,
    terms      tsvector NOT NULL,
    PRIMARY KEY (log_id, sequence)
);
COMMENT ON COLUMN search_documents.terms IS 'words and pairs of characters with places; after a slash author, kind and time';
CREATE INDEX search_documents_terms ON search_documents USING gin (terms) WITH (fastupdate = on, gin_pending_list_limit = 512);

CREATE TABLE search_progress (
    log_id    uuid PRIMARY KEY,
    sequence  bigint NOT NULL,
    messages  bigint NOT NULL,
    newest_at timestamptz NOT NULL
) WITH (fillfactor = 70);
COMMENT ON COLUMN search_progress.sequence IS 'messages up to here are in search_documents';
COMMENT ON COLUMN search_progress.messages IS 'messages of the log up to there; less than in the log: some are not indexed';
COMMENT ON COLUMN search_progress.newest_at IS 'no document of the log is newer';
"""

_KEY = "hashtextextended(log_id::text, 1)"
HOLD = """
CREATE FUNCTION search_hold_v1(log_ids uuid[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
PERFORM pg_advisory_xact_lock(key) FROM (
    SELECT DISTINCT [KEY] AS key FROM unnest(log_ids) AS log_id ORDER BY key
) AS ordered;
END
$function$
""".replace("[KEY]", _KEY)

# Messages after the progress of these logs, about `most` in all, including redacted ones. Locked logs are skipped. The second
# statement sees everything committed before the locks were acquired.
CLAIM = """
CREATE FUNCTION search_claim_v1(asked uuid[], most integer) RETURNS TABLE (
    log_id uuid, message_count bigint, sequence bigint, message_number bigint, author_id text, created_at timestamptz,
    wire bytea, edited_text text, is_redacted boolean
) LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
DECLARE
    held uuid[] := ARRAY(SELECT log_id FROM unnest(asked) AS log_id WHERE pg_try_advisory_xact_lock([KEY]));
BEGIN
RETURN QUERY WITH behind AS (
    SELECT l.log_id, l.message_count, coalesce(p.sequence, 0) AS since, l.message_count - coalesce(p.messages, 0) AS missing,
        sum(l.message_count - coalesce(p.messages, 0)) OVER (ORDER BY l.log_id) AS total
    FROM unnest(held) AS h (log_id) JOIN logs AS l ON l.log_id = h.log_id
    LEFT JOIN search_progress AS p ON p.log_id = l.log_id
    WHERE l.message_count > coalesce(p.messages, 0)
)
SELECT b.log_id, b.message_count, e.sequence, e.message_number, e.sender_id, e.created_at, e.wire, e.edited_text,
    e.redacted_by IS NOT NULL
FROM behind AS b, LATERAL (
    SELECT m.sequence, m.message_number, m.sender_id, m.created_at, m.wire, s.edited_text, s.redacted_by
    FROM log_events AS m LEFT JOIN LATERAL (
        SELECT t.edited_text, t.redacted_by FROM message_states AS t
        WHERE t.log_id = m.log_id AND t.sequence = m.sequence LIMIT 1
    ) AS s ON true
    WHERE m.log_id = b.log_id AND m.event_type = 'message' AND m.sequence > b.since ORDER BY m.sequence LIMIT most
) AS e WHERE b.total - b.missing < most;
END
$function$
""".replace("[KEY]", _KEY)

INDEX = """
CREATE FUNCTION search_index_v1(
    log_ids uuid[], sequences bigint[], moments timestamptz[], documents text[], done uuid[], uptos bigint[],
    counts bigint[], newest timestamptz[]
) RETURNS void LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
BEGIN
INSERT INTO search_documents (log_id, sequence, created_at, terms)
SELECT log_id, sequence, created_at, document::tsvector
FROM unnest(log_ids, sequences, moments, documents) AS row (log_id, sequence, created_at, document);
INSERT INTO search_progress AS p (log_id, sequence, messages, newest_at) SELECT log_id, sequence, messages, newest_at
FROM unnest(done, uptos, counts, newest) AS row (log_id, sequence, messages, newest_at)
ON CONFLICT (log_id) DO UPDATE SET sequence = EXCLUDED.sequence, messages = EXCLUDED.messages,
    newest_at = greatest(p.newest_at, EXCLUDED.newest_at);
END
$function$
"""

# Changes the documents of messages with new texts, or deletes them if `documents` is NULL. Marks of replies and mentions are
# kept. Messages that are not indexed yet are skipped, because they will be indexed with their new text.
FOLLOW = """
CREATE FUNCTION search_follow_v1(log_ids uuid[], sequences bigint[], documents text[]) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
BEGIN
PERFORM search_hold_v1(log_ids);
DELETE FROM search_documents AS d USING unnest(log_ids, sequences, documents) AS row (log_id, sequence, document)
WHERE row.document IS NULL AND d.log_id = row.log_id AND d.sequence = row.sequence;
UPDATE search_documents AS d SET terms = row.document::tsvector
    || CASE WHEN d.terms @@ '''/reply'''::tsquery THEN '''/reply'''::tsvector ELSE ''::tsvector END
    || CASE WHEN d.terms @@ '''/mention'''::tsquery THEN '''/mention'''::tsvector ELSE ''::tsvector END
FROM unnest(log_ids, sequences, documents) AS row (log_id, sequence, document)
WHERE row.document IS NOT NULL AND d.log_id = row.log_id AND d.sequence = row.sequence;
END
$function$
"""

# The channels to search: those that the reader may read now, of `places` or else of their own. `permitted` are the roles that
# may read, `overseers` the server roles that need no membership.
SCOPE = """
CREATE FUNCTION search_scope_v1(reader uuid, places uuid[], permitted text[], overseers text[]) RETURNS TABLE (
    log_id uuid, messages bigint, indexed bigint, upto bigint, newest_at timestamptz
) LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
BEGIN
RETURN QUERY WITH named AS (
    SELECT c.channel_id FROM guild_memberships AS g JOIN channels AS c ON c.guild_id = g.guild_id
    WHERE g.user_id = reader AND cardinality(places) = 0
    UNION SELECT channel_id FROM channel_memberships WHERE user_id = reader AND cardinality(places) = 0
    UNION SELECT channel_id FROM channels WHERE channel_id = ANY (places)
    UNION SELECT channel_id FROM channels WHERE guild_id = ANY (places)
)
SELECT c.channel_id, l.message_count, coalesce(p.messages, 0), coalesce(p.sequence, 0), p.newest_at
FROM named AS n JOIN channels AS c ON c.channel_id = n.channel_id JOIN logs AS l ON l.log_id = c.channel_id
LEFT JOIN guild_memberships AS g ON g.guild_id = c.guild_id AND g.user_id = reader
LEFT JOIN channel_memberships AS m ON m.channel_id = c.channel_id AND m.user_id = reader
LEFT JOIN search_progress AS p ON p.log_id = c.channel_id
WHERE coalesce(g.role = ANY (permitted), false) OR coalesce(m.role = ANY (permitted), false) OR EXISTS (
    SELECT FROM user_roles AS r WHERE r.user_id = reader AND r.role = ANY (permitted)
    AND (g.role IS NOT NULL OR m.role IS NOT NULL OR r.role = ANY (overseers))
);
END
$function$
"""

_CONDITIONS = """
    AND (since IS NULL OR d.created_at >= since) AND (until IS NULL OR d.created_at < until)
    AND (behind_at IS NULL OR (d.created_at, d.log_id, d.sequence) < (behind_at, behind_log, behind_sequence))
    AND (NOT reacted OR coalesce((
        SELECT s.reactions <> '[]' FROM message_states AS s WHERE s.log_id = d.log_id AND s.sequence = d.sequence
    ), false))
    AND (NOT pinned OR coalesce((
        SELECT s.pinned_at IS NOT NULL FROM message_states AS s WHERE s.log_id = d.log_id AND s.sequence = d.sequence
    ), false))
    ORDER BY d.created_at DESC, d.log_id DESC, d.sequence DESC LIMIT size
"""
_FIND = """
CREATE FUNCTION {name}(
    log_ids uuid[], query tsquery, since timestamptz, until timestamptz, behind_at timestamptz, behind_log uuid,
    behind_sequence bigint, pinned boolean, reacted boolean, size integer,
    OUT found_logs uuid[], OUT found_sequences bigint[]
) LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
BEGIN
SELECT array_agg(log_id), array_agg(sequence) INTO found_logs, found_sequences FROM (
    SELECT d.log_id, d.sequence FROM {tables}{conditions}
) AS best;
END
$function$
"""
# Uses the index of terms, then filters by channel.
FIND = _FIND.format(
    name="search_find_v1",
    tables="search_documents AS d JOIN unnest(log_ids) AS r (log_id) ON r.log_id = d.log_id WHERE d.terms @@ query",
    conditions=_CONDITIONS,
)
# Reads every document of each channel.
SCAN = _FIND.format(
    name="search_scan_v1",
    tables="""unnest(log_ids) AS r (log_id) JOIN search_documents AS d ON d.log_id = r.log_id
    WHERE (query IS NULL OR d.terms @@ query)""",
    conditions=_CONDITIONS,
)
# Reads every pinned message of each channel. Without `> '-infinity'`, PostgreSQL does not use the index of pins while there are
# none.
PINS = _FIND.format(
    name="search_pins_v1",
    tables="""unnest(log_ids) AS r (log_id)
    JOIN message_states AS p ON p.log_id = r.log_id AND p.pinned_at > '-infinity'
    JOIN search_documents AS d ON d.log_id = p.log_id AND d.sequence = p.sequence
    WHERE (query IS NULL OR d.terms @@ query)""",
    conditions=_CONDITIONS,
)
FIND_SETTINGS = """SET plan_cache_mode = 'force_generic_plan' SET enable_hashjoin = 'on' SET enable_seqscan = 'off'
    SET enable_nestloop = 'off' SET enable_mergejoin = 'off'"""

LEVELS = (22, 26, 30, 34)  # of spans of time, as powers of 2 in milliseconds: 70 minutes, 19 hours, 12 days, 199 days
FEW, MORE = 2, 8  # spans of one level in the first step, and in the later ones; each step covers four times the time

# The newest `size` hits of the index, and all messages not indexed yet, for the caller to compare. A single row without a
# sequence means that more than `tail_most` messages are not indexed. Up to `scan_most` messages are scanned. Beyond that, the
# index is queried for growing spans of time until there are enough hits. Each span reaches from the newest possible document
# back to the beginning of an earlier span, so that no hit outside is newer. A search by prefix costs the same for any span, so
# it takes only every second step.
SEARCH = (
    """
CREATE FUNCTION search_messages_v1(
    reader uuid, places uuid[], permitted text[], overseers text[], query tsquery, since timestamptz, until timestamptz,
    behind_at timestamptz, behind_log uuid, behind_sequence bigint, pinned boolean, reacted boolean,
    scan_most bigint, tail_most bigint, size integer
) RETURNS TABLE (
    channel_id uuid, name text, guild_id uuid, is_indexed boolean, sequence bigint, event_id text, author_id text,
    created_at timestamptz, wire bytea, edited_text text, edited_at timestamptz, versions integer, redacted_by text,
    pinned_at timestamptz, replies bigint, reactions text, crowded boolean
) LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
DECLARE
    log_ids uuid[];
    tail_logs uuid[];
    tail_sinces bigint[];
    tail_messages bigint;
    total bigint;
    newest bigint;
    level integer;
    spans bigint;
    span bigint;
    found_logs uuid[];
    found_sequences bigint[];
    is_done boolean := false;
BEGIN
SELECT array_agg(log_id), array_agg(log_id) FILTER (WHERE messages > indexed),
    array_agg(upto) FILTER (WHERE messages > indexed), coalesce(sum(messages - indexed), 0), coalesce(sum(messages), 0),
    (extract(epoch FROM least(max(newest_at), until, behind_at)) * 1000)::bigint
INTO log_ids, tail_logs, tail_sinces, tail_messages, total, newest
FROM search_scope_v1(reader, places, permitted, overseers);
IF tail_messages > tail_most THEN
    RETURN QUERY SELECT NULL::uuid, NULL::text, NULL::uuid, false, NULL::bigint, NULL::text, NULL::text, NULL::timestamptz,
        NULL::bytea, NULL::text, NULL::timestamptz, NULL::integer, NULL::text, NULL::timestamptz, NULL::bigint, NULL::text,
        NULL::boolean;
    RETURN;
END IF;
IF newest IS NULL THEN
    is_done := true;
ELSIF pinned THEN
    SELECT f.found_logs, f.found_sequences INTO found_logs, found_sequences FROM search_pins_v1(
        log_ids, query, since, until, behind_at, behind_log, behind_sequence, pinned, reacted, size
    ) AS f;
    is_done := true;
ELSIF total > scan_most THEN
    FOR level, spans IN SELECT l.level, s.spans FROM unnest(ARRAY[{levels}]) AS l (level), unnest(ARRAY[{spans}]) AS s (spans)
        WHERE s.spans = {few} OR query IS NULL OR position(':*' IN query::text) = 0 ORDER BY l.level, s.spans
    LOOP
        span := newest >> level;
        SELECT f.found_logs, f.found_sequences INTO found_logs, found_sequences FROM search_find_v1(
            log_ids, concat_ws(' & ', query::text, (
                SELECT '(' || string_agg(format('''/%s:%s''', level, span - back), ' | ') || ')'
                FROM generate_series(0, spans - 1) AS back
            ))::tsquery,
            since, until, behind_at, behind_log, behind_sequence, pinned, reacted, size
        ) AS f;
        is_done := cardinality(found_logs) = size OR (span - spans + 1) << level <= extract(epoch FROM since) * 1000;
        EXIT WHEN is_done;
    END LOOP;
    IF NOT coalesce(is_done, false) AND query IS NOT NULL THEN
        SELECT f.found_logs, f.found_sequences INTO found_logs, found_sequences FROM search_find_v1(
            log_ids, query, since, until, behind_at, behind_log, behind_sequence, pinned, reacted, size
        ) AS f;
        is_done := true;
    END IF;
END IF;
IF NOT coalesce(is_done, false) THEN
    SELECT f.found_logs, f.found_sequences INTO found_logs, found_sequences FROM search_scan_v1(
        log_ids, query, since, until, behind_at, behind_log, behind_sequence, pinned, reacted, size
    ) AS f;
END IF;
RETURN QUERY WITH picked AS (
    SELECT true AS is_indexed, e.log_id, e.sequence, e.event_id, e.sender_id, e.created_at, e.wire
    FROM unnest(found_logs, found_sequences) AS f (log_id, sequence), LATERAL (
        SELECT x.log_id, x.sequence, x.event_id, x.sender_id, x.created_at, x.wire FROM log_events AS x
        WHERE x.log_id = f.log_id AND x.sequence = f.sequence LIMIT 1
    ) AS e
    UNION ALL
    SELECT false, e.log_id, e.sequence, e.event_id, e.sender_id, e.created_at, e.wire
    FROM unnest(tail_logs, tail_sinces) AS t (log_id, since), LATERAL (
        SELECT x.log_id, x.sequence, x.event_id, x.sender_id, x.created_at, x.wire FROM log_events AS x
        WHERE x.log_id = t.log_id AND x.event_type = 'message' AND x.sequence > t.since
    ) AS e
)
SELECT c.channel_id, c.name, c.guild_id, p.is_indexed, p.sequence, p.event_id, p.sender_id, p.created_at, p.wire,
    s.edited_text, s.edited_at, s.versions, s.redacted_by, s.pinned_at, s.replies, s.reactions, s.crowded
FROM picked AS p JOIN channels AS c ON c.channel_id = p.log_id LEFT JOIN LATERAL (
    SELECT x.edited_text, x.edited_at, x.versions, x.redacted_by, x.pinned_at, x.replies, x.reactions, x.crowded
    FROM message_states AS x WHERE x.log_id = p.log_id AND x.sequence = p.sequence LIMIT 1
) AS s ON true;
END
$function$
""".replace("{levels}", ", ".join(map(str, LEVELS)))
    .replace("{spans}", f"{FEW}, {MORE}")
    .replace("{few}", str(FEW))
)

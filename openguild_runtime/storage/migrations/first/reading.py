"""Functions that read pages of a log, raw or folded, and one that marks channels as read.

They are functions because of their settings. All statements of a STABLE function see the snapshot of the calling statement,
so that a page is consistent.
"""

from openguild_runtime.storage.migrations.first.appends import filled

# The first `size` events after `lower`, or else the last `size` before `upper`. An empty page is a single row without an event.
EVENTS = """
CREATE FUNCTION log_page_v1(of_log uuid, lower bigint, upper bigint, size integer) RETURNS TABLE (
    sequence bigint, event_id text, wire bytea, created_at timestamptz
) LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
BEGIN
IF lower IS NOT NULL THEN
    RETURN QUERY SELECT e.sequence, e.event_id, e.wire, e.created_at FROM logs AS l LEFT JOIN (
        SELECT sequence, event_id, wire, created_at FROM log_events
        WHERE log_id = of_log AND sequence > lower ORDER BY sequence LIMIT size
    ) AS e ON true WHERE l.log_id = of_log;
ELSE
    RETURN QUERY SELECT e.sequence, e.event_id, e.wire, e.created_at FROM logs AS l LEFT JOIN (
        SELECT sequence, event_id, wire, created_at FROM log_events
        WHERE log_id = of_log AND sequence < upper ORDER BY sequence DESC LIMIT size
    ) AS e ON true WHERE l.log_id = of_log ORDER BY e.sequence;
END IF;
END
$function$
"""

_PAGE = """
    (SELECT sequence, event_id, sender_id, wire, created_at, target FROM log_events
    WHERE log_id = of_log AND event_type = 'message' AND sequence < upper ORDER BY sequence DESC LIMIT last)
    UNION ALL
    (SELECT sequence, event_id, sender_id, wire, created_at, target FROM log_events
    WHERE log_id = of_log AND event_type = 'message' AND sequence > lower ORDER BY sequence LIMIT first)
"""
_THESE = """
    SELECT sequence, event_id, sender_id, wire, created_at, target FROM log_events
    WHERE log_id = of_log AND event_type = 'message' AND sequence = ANY (sequences)
"""

# The messages of the page, and those that they answer. `crowds` is JSON about each emoji used by more users than `reactions`
# names: whether the reader has used it, and if fewer than `shown` are named, its first users. An empty page is a single row
# without a message.
_FOLD = """
CREATE FUNCTION {name}(of_log uuid, reader text, shown integer, {arguments}) RETURNS TABLE (
    head_sequence bigint, in_page boolean, target bigint, wire bytea, crowds text, sequence bigint, event_id text,
    author_id text, created_ms bigint, edited_text text, edited_ms bigint, versions integer, redacted_by text,
    pinned_ms bigint, replies bigint, reactions text
) LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
BEGIN
RETURN QUERY WITH page AS MATERIALIZED ({page}), picked AS (
    SELECT true AS in_page, sequence, target, event_id, sender_id, wire, created_at FROM page
    UNION ALL
    SELECT false, e.sequence, NULL, e.event_id, e.sender_id, e.wire, e.created_at
    FROM (SELECT DISTINCT target FROM page WHERE target IS NOT NULL EXCEPT SELECT sequence FROM page) AS answered,
    LATERAL (
        SELECT sequence, event_id, sender_id, wire, created_at FROM log_events
        WHERE log_id = of_log AND sequence = answered.target LIMIT 1
    ) AS e
)
SELECT l.head_sequence, p.in_page, p.target, p.wire, p.crowds, p.sequence, p.event_id, p.sender_id,
    {created_ms}, p.edited_text, {edited_ms}, p.versions, p.redacted_by, {pinned_ms}, p.replies, p.reactions
FROM logs AS l LEFT JOIN (
    SELECT m.in_page, m.sequence, m.target, m.event_id, m.sender_id, m.created_at, m.wire, s.edited_text, s.edited_at,
        s.versions, s.redacted_by, s.pinned_at, s.replies, s.reactions, CASE WHEN s.crowded THEN (
            SELECT jsonb_agg(jsonb_build_array(used.emoji, coalesce((
                SELECT true FROM reactions AS r WHERE r.log_id = of_log AND r.message = m.sequence
                AND r.emoji = used.emoji AND r.user_id = reader LIMIT 1
            ), false), CASE WHEN coalesce(cardinality(used.reactors), 0) < shown THEN to_jsonb(ARRAY(
                SELECT r.user_id FROM reactions AS r WHERE r.log_id = of_log AND r.message = m.sequence
                AND r.emoji = used.emoji ORDER BY r.user_id LIMIT shown
            )) END))::text
            FROM jsonb_to_recordset(s.reactions::jsonb) AS used (emoji text, count bigint, reactors text[])
            WHERE used.count > coalesce(cardinality(used.reactors), 0)
        ) END AS crowds
    FROM picked AS m LEFT JOIN LATERAL (
        SELECT edited_text, edited_at, versions, redacted_by, pinned_at, replies, reactions, crowded FROM message_states
        WHERE log_id = of_log AND sequence = m.sequence LIMIT 1
    ) AS s ON true
) AS p ON true WHERE l.log_id = of_log AND l.kind = 'channel';
END
$function$
"""
_MILLIS = {
    f"{name}_ms": f"(date_part('epoch', p.{name}_at) * 1000)::bigint" for name in ("created", "edited", "pinned")
}
MESSAGE_PAGE = _FOLD.format(
    **_MILLIS,
    name="message_page_v1",
    arguments="upper bigint, last integer, lower bigint, first integer",
    page=_PAGE,
)
MESSAGES = _FOLD.format(**_MILLIS, name="messages_v1", arguments="sequences bigint[]", page=_THESE)

# `asked` NULL marks up to the newest event. Locks the reader's row before counting, so that a concurrent post of theirs, which
# raises `own_since`, is either seen with its event or waits. To find how many of their messages follow the new position, counts
# the shorter of two parts of the log. A long part is counted before the lock, because a waiting post would block its channel;
# the number of messages between two sequence numbers does not change. If a mirror begins after the position, because it was
# cleared in the meantime, the messages before the first event are read.
LONG_PART = 1_000  # events
MARK_READ = filled(
    """
CREATE FUNCTION mark_read_v1(channels_read uuid[], reader uuid, asked bigint, moment timestamptz) RETURNS TABLE (
    channel_id uuid, last_read bigint, head_sequence bigint, unread bigint, moved boolean
) LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
DECLARE
    known_logs uuid[];
    known_formers bigint[];
    known_places bigint[];
    known_counts bigint[];
BEGIN
PERFORM FROM channels WHERE channel_id = ANY (channels_read) ORDER BY channel_id FOR KEY SHARE;
INSERT INTO channel_read_state (channel_id, user_id, updated_at)
    SELECT channel_id, user_id, moment FROM channels, users
    WHERE channel_id = ANY (channels_read) AND user_id = reader ORDER BY channel_id
    ON CONFLICT (channel_id, user_id) DO NOTHING;
IF asked IS NOT NULL THEN
    SELECT array_agg(s.channel_id), array_agg(s.last_read_sequence), array_agg(asked), array_agg(
        CASE WHEN l.head_sequence - asked <= asked - s.last_read_sequence
        THEN s.own_since - {OWN_BEHIND} ELSE {OWN_BETWEEN} END
    ) INTO known_logs, known_formers, known_places, known_counts
    FROM channel_read_state AS s JOIN logs AS l ON l.log_id = s.channel_id
    WHERE s.channel_id = ANY (channels_read) AND s.user_id = reader
        AND asked BETWEEN s.last_read_sequence + {LONG} AND l.head_sequence - {LONG};
END IF;
PERFORM FROM channel_read_state WHERE channel_id = ANY (channels_read) AND user_id = reader
    ORDER BY channel_id FOR NO KEY UPDATE;
RETURN QUERY WITH aimed AS (
    SELECT s.channel_id, s.last_read_sequence AS former, s.last_read_messages, s.own_since, l.head_sequence,
        l.message_count, greatest(
            s.last_read_sequence, least(greatest(coalesce(asked, l.head_sequence), 0), l.head_sequence)
        ) AS place
    FROM channel_read_state AS s JOIN logs AS l ON l.log_id = s.channel_id
    WHERE s.channel_id = ANY (channels_read) AND s.user_id = reader
), counted AS (
    SELECT aimed.channel_id, aimed.former, aimed.place, aimed.head_sequence, aimed.message_count,
        CASE WHEN place >= head_sequence THEN message_count WHEN place = former THEN last_read_messages ELSE coalesce((
            SELECT e.message_number FROM log_events AS e WHERE e.log_id = aimed.channel_id AND e.sequence = aimed.place
        ), (
            SELECT e.message_number - 1 FROM log_events AS e
            WHERE e.log_id = aimed.channel_id AND e.event_type = 'message' AND e.sequence > aimed.place
            ORDER BY e.sequence LIMIT 1
        ), message_count) END AS messages,
        CASE WHEN place >= head_sequence THEN 0 WHEN place = former THEN own_since
        WHEN known.mine IS NOT NULL THEN own_since - known.mine
        WHEN head_sequence - place <= place - former THEN (
            SELECT count(*) FROM log_events AS e WHERE e.log_id = aimed.channel_id AND e.event_type = 'message'
            AND e.sequence > aimed.place AND e.sender_id = reader::text
        ) ELSE own_since - (
            SELECT count(*) FROM log_events AS e WHERE e.log_id = aimed.channel_id AND e.event_type = 'message'
            AND e.sequence > aimed.former AND e.sequence <= aimed.place AND e.sender_id = reader::text
        ) END AS own
    FROM aimed LEFT JOIN unnest(known_logs, known_formers, known_places, known_counts)
        AS known (log_id, since, upto, mine)
        ON known.log_id = aimed.channel_id AND known.since = aimed.former AND known.upto = aimed.place
), kept AS (
    UPDATE channel_read_state AS s SET last_read_sequence = place, last_read_messages = messages, own_since = own,
        updated_at = moment
    FROM counted WHERE s.channel_id = counted.channel_id AND s.user_id = reader AND place > former
)
SELECT channel_id, place, greatest(head_sequence, place), greatest(message_count - messages - own, 0), place > former FROM counted;
END
$function$
""",
    LONG=str(LONG_PART),
    OWN_BEHIND="""(
            SELECT count(*) FROM log_events AS e WHERE e.log_id = s.channel_id AND e.event_type = 'message'
            AND e.sequence > asked AND e.sender_id = reader::text
        )""",
    OWN_BETWEEN="""(
            SELECT count(*) FROM log_events AS e WHERE e.log_id = s.channel_id AND e.event_type = 'message'
            AND e.sequence > s.last_read_sequence AND e.sequence <= asked AND e.sender_id = reader::text
        )""",
)

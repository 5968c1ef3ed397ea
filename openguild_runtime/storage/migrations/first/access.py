"""Functions that tell what users are in channels, for the sake of their settings: as a plain statement it is planned each time."""

from openguild_runtime.storage.migrations.first.appends import by_log, filled

_ACCESS = """
CREATE FUNCTION {NAME}(log_ids uuid[], readers uuid[]{ARGUMENTS}) RETURNS TABLE (
    place bigint, channel_id uuid, guild_role text, channel_role text, server_roles text[]{RESULTS}
) LANGUAGE plpgsql STABLE ROWS 1 AS $function$
#variable_conflict use_column
BEGIN
{QUERY}
END
$function$
"""
_QUERY = """
RETURN QUERY SELECT given.place, c.channel_id, g.role, m.role,
    ARRAY(SELECT r.role FROM user_roles AS r WHERE r.user_id = given.reader ORDER BY r.granted_at, r.role){COLUMNS}
FROM unnest(log_ids, readers{ARRAYS}) WITH ORDINALITY AS given (log_id, reader{NAMES}, place)
JOIN channels AS c ON c.channel_id = given.log_id
LEFT JOIN LATERAL (
    SELECT role FROM guild_memberships WHERE guild_id = c.guild_id AND user_id = given.reader LIMIT 1
) AS g ON true
LEFT JOIN LATERAL (
    SELECT role FROM channel_memberships WHERE channel_id = c.channel_id AND user_id = given.reader LIMIT 1
) AS m ON true{MESSAGES};
"""
_SEEN = """,
    t.sequence, t.event_id, t.sender_id, t.created_at, s.edited_text, s.edited_at, s.versions, s.redacted_by, s.pinned_at,
    s.replies, s.reactions, coalesce(s.revision, 0), own.reacted IS NOT NULL"""
_MESSAGES = """
LEFT JOIN LATERAL (
    SELECT e.sequence, e.event_id, e.event_type, e.sender_id, e.created_at FROM log_events AS e
    WHERE e.log_id = {log} AND e.event_id = given.target LIMIT 1
) AS t ON t.event_type = 'message'
LEFT JOIN LATERAL (
    SELECT p.edited_text, p.edited_at, p.versions, p.redacted_by, p.pinned_at, p.replies, p.reactions, p.revision
    FROM message_states AS p WHERE p.log_id = given.log_id AND p.sequence = t.sequence LIMIT 1
) AS s ON true
LEFT JOIN LATERAL (
    SELECT true AS reacted FROM reactions AS r WHERE r.log_id = given.log_id AND r.message = t.sequence
    AND r.emoji = given.emoji AND r.user_id = given.reader::text LIMIT 1
) AS own ON true"""

ACCESS = filled(
    _ACCESS,
    NAME="channel_access_v1",
    ARGUMENTS="",
    RESULTS="",
    QUERY=filled(_QUERY.strip(), COLUMNS="", ARRAYS="", NAMES="", MESSAGES=""),
)

# With the messages that have the event ids `targets`, and whether the users have reacted to them with `emojis`.
CHANGE_ACCESS = filled(
    _ACCESS,
    NAME="change_access_v1",
    ARGUMENTS=", targets text[], emojis text[]",
    RESULTS=""",
    sequence bigint, event_id text, author_id text, posted_at timestamptz, edited_text text, edited_at timestamptz,
    versions integer, redacted_by text, pinned_at timestamptz, replies bigint, reactions text, revision bigint,
    has_reacted boolean
""",
    QUERY=by_log(
        filled(_QUERY, COLUMNS=_SEEN, ARRAYS=", targets, emojis", NAMES=", target, emoji", MESSAGES=_MESSAGES)
    ),
)

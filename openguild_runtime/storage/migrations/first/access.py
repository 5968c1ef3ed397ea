"""Functions that read roles in channels, and messages to be changed. Plain statements would be planned for each call."""

from openguild_runtime.storage.migrations.first.appends import by_log, filled
from openguild_runtime.storage.migrations.first.timeouts import channel_role_now, guild_role_now

_IN_GUILD = guild_role_now("role", guild="c.guild_id", user="given.reader")
_IN_CHANNEL = channel_role_now("role", guild="c.guild_id", user="given.reader")
ACCESS = filled(
    """
CREATE FUNCTION channel_access_v1(log_ids uuid[], readers uuid[]) RETURNS TABLE (
    place bigint, channel_id uuid, guild_role text, channel_role text, server_roles text[]
) LANGUAGE plpgsql STABLE ROWS 1 AS $function$
#variable_conflict use_column
BEGIN
RETURN QUERY SELECT given.place, c.channel_id, g.role, m.role,
    ARRAY(SELECT r.role FROM user_roles AS r WHERE r.user_id = given.reader ORDER BY r.granted_at, r.role)
FROM unnest(log_ids, readers) WITH ORDINALITY AS given (log_id, reader, place)
JOIN channels AS c ON c.channel_id = given.log_id
LEFT JOIN LATERAL (
    SELECT {GUILD_ROLE} AS role FROM guild_memberships WHERE guild_id = c.guild_id AND user_id = given.reader LIMIT 1
) AS g ON true
LEFT JOIN LATERAL (
    SELECT {CHANNEL_ROLE} AS role FROM channel_memberships WHERE channel_id = c.channel_id AND user_id = given.reader LIMIT 1
) AS m ON true;
END
$function$
""",
    GUILD_ROLE=_IN_GUILD,
    CHANNEL_ROLE=_IN_CHANNEL,
)

_SEEN = """
RETURN QUERY SELECT given.place, t.sequence, t.event_id, t.sender_id, t.created_at, s.edited_text, s.edited_at, s.versions,
    s.redacted_by, s.pinned_at, s.replies, s.reactions, s.crowded, coalesce(s.revision, 0), own.reacted IS NOT NULL
FROM unnest(log_ids, sender_ids, targets, emojis) WITH ORDINALITY AS given (log_id, sender_id, target, emoji, place)
JOIN LATERAL (
    SELECT e.sequence, e.event_id, e.event_type, e.sender_id, e.created_at FROM log_events AS e
    WHERE e.log_id = {log} AND e.event_id = given.target LIMIT 1
) AS t ON t.event_type = 'message'
LEFT JOIN LATERAL (
    SELECT p.edited_text, p.edited_at, p.versions, p.redacted_by, p.pinned_at, p.replies, p.reactions, p.crowded,
        p.revision FROM message_states AS p WHERE p.log_id = given.log_id AND p.sequence = t.sequence LIMIT 1
) AS s ON true
LEFT JOIN LATERAL (
    SELECT true AS reacted FROM reactions AS r WHERE r.log_id = given.log_id AND r.message = t.sequence
    AND r.emoji = given.emoji AND r.user_id = given.sender_id LIMIT 1
) AS own ON true;
"""

# The messages with the event IDs `targets`, and whether the senders have reacted to them with `emojis`.
SEEN = filled(
    """
CREATE FUNCTION seen_messages_v1(log_ids uuid[], sender_ids text[], targets text[], emojis text[]) RETURNS TABLE (
    place bigint, sequence bigint, event_id text, author_id text, created_at timestamptz, edited_text text,
    edited_at timestamptz, versions integer, redacted_by text, pinned_at timestamptz, replies bigint, reactions text,
    crowded boolean, revision bigint, has_reacted boolean
) LANGUAGE plpgsql STABLE ROWS 1 AS $function$
#variable_conflict use_column
BEGIN
{QUERY}
END
$function$
""",
    QUERY=by_log(_SEEN),
)

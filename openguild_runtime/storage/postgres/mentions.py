"""Mentions in PostgreSQL: stored with their message, listed as an inbox, and counted while unread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from openguild_proto.effects.channels import Appended, AppendEvent
from openguild_proto.effects.mentions import ListMentions
from openguild_proto.effects.performs import performs
from openguild_proto.limits import MAX_COUNTED_MENTIONS
from openguild_proto.log.commits import Outcome
from openguild_proto.policy.permissions import ROLES
from openguild_proto.records import NOBODY, MentionRecord
from openguild_proto.schemas.log_entries import mentioned
from openguild_runtime.storage.postgres.columns import Columns
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, bound, moment

MENTION = Columns(MentionRecord)
RECENT_MENTIONS = 1_000  # ours: the newest mentions of a user, among which unread ones are looked for first

# The channels of user $1: those of their guilds, and those in which they have a role. A UNION, because with OR PostgreSQL reads
# all channels.
CHANNELS_OF_USER = """
SELECT c.channel_id, c.guild_id, c.created_at FROM guild_memberships AS g JOIN channels AS c USING (guild_id)
WHERE g.user_id = $1
UNION
SELECT c.channel_id, c.guild_id, c.created_at FROM channel_memberships AS m JOIN channels AS c USING (channel_id)
WHERE m.user_id = $1
""".strip()
# These channels, with the index of the user's effective role in $2 (roles, highest first) and the time since which they can read.
OWN_CHANNELS = f"""
SELECT c.channel_id, c.guild_id, c.created_at, least(g.joined_at, m.joined_at) AS since,
    coalesce(s.last_read_sequence, 0) AS last_read,
    coalesce(s.last_read_messages, 0) AS last_read_messages, coalesce(s.own_since, 0) AS own_since, least(
        array_position($2::text[], g.role), array_position($2::text[], m.role),
        (SELECT min(array_position($2::text[], role)) FROM user_roles WHERE user_id = $1)
    ) AS highest
FROM ({CHANNELS_OF_USER}) AS c
LEFT JOIN guild_memberships AS g ON g.guild_id = c.guild_id AND g.user_id = $1
LEFT JOIN channel_memberships AS m ON m.channel_id = c.channel_id AND m.user_id = $1
LEFT JOIN channel_read_state AS s ON s.channel_id = c.channel_id AND s.user_id = $1
WHERE true
"""
# Whether a row `n` of mentions_of_many mentions the user in the channel `c` of the above, unless they are mentioned by ID too.
OF_MANY = """
n.created_at >= c.since AND n.sender_id <> $1::text AND (n.everyone OR ($2::text[])[c.highest] = ANY (n.roles))
    AND NOT EXISTS (SELECT FROM mentions AS d WHERE d.user_id = $1 AND d.log_id = n.log_id AND d.sequence = n.sequence)
"""
# The number of unread messages in channel `c` that mention the user, at most MAX_COUNTED_MENTIONS.
UNREAD_MENTIONS = f"""
(SELECT count(*) FROM (
    SELECT FROM mentions AS n WHERE n.user_id = $1 AND n.log_id = c.channel_id AND n.sequence > c.last_read
    UNION ALL
    SELECT FROM mentions_of_many AS n WHERE n.log_id = c.channel_id AND n.sequence > c.last_read AND {OF_MANY}
    LIMIT {MAX_COUNTED_MENTIONS}
) AS counted)
"""
OLDER = '($5::timestamptz IS NULL OR (n.created_at, n.event_id) < ($5, $6::text COLLATE "C"))'
WANTED = f"(NOT $3::boolean OR n.sequence > c.last_read) AND {OLDER}"
_INBOX = f"""
WITH own AS MATERIALIZED ({OWN_CHANNELS}), direct AS ({{direct}}
), of_many AS (
    SELECT n.log_id, n.sequence, n.event_id, n.created_at, false AS direct, c.guild_id, c.last_read
    FROM own AS c, LATERAL (
        SELECT n.log_id, n.sequence, n.event_id, n.created_at FROM mentions_of_many AS n
        WHERE n.log_id = c.channel_id AND {WANTED} AND {OF_MANY} ORDER BY n.created_at DESC, n.event_id DESC LIMIT $4
    ) AS n
)
SELECT n.log_id AS channel_id, n.guild_id, n.sequence, n.event_id, n.created_at, e.wire, s.edited_text, n.direct,
    n.sequence > n.last_read AS unread
FROM (
    SELECT log_id, sequence, event_id, created_at, direct, guild_id, last_read FROM direct
    UNION ALL SELECT log_id, sequence, event_id, created_at, direct, guild_id, last_read FROM of_many
) AS n
CROSS JOIN LATERAL (SELECT wire FROM log_events WHERE log_id = n.log_id AND sequence = n.sequence LIMIT 1) AS e
LEFT JOIN LATERAL (SELECT edited_text FROM message_states WHERE log_id = n.log_id AND sequence = n.sequence LIMIT 1) AS s
    ON true
ORDER BY n.created_at DESC, n.event_id DESC LIMIT $4
"""
UNREAD_OF = f"SELECT {UNREAD_MENTIONS} AS mentions FROM ({OWN_CHANNELS} AND c.channel_id = $3) AS c"

_DIRECT = "n.log_id, n.sequence, n.event_id, n.created_at, true AS direct, c.guild_id, c.last_read"
INBOX = _INBOX.format(
    direct=f"""
    SELECT {_DIRECT} FROM mentions AS n JOIN own AS c ON c.channel_id = n.log_id
    WHERE n.user_id = $1 AND {WANTED} ORDER BY n.created_at DESC, n.event_id DESC LIMIT $4"""
)
# First among the newest, which suffices for users who read few. Otherwise by channel, because for users who read all it would
# look at each mention that they ever got.
UNREAD_INBOX = _INBOX.format(
    direct=f"""
    WITH recent AS MATERIALIZED (
        SELECT {_DIRECT} FROM (
            SELECT n.log_id, n.sequence, n.event_id, n.created_at FROM mentions AS n
            WHERE n.user_id = $1 AND {OLDER} ORDER BY n.created_at DESC, n.event_id DESC LIMIT {RECENT_MENTIONS}
        ) AS n JOIN own AS c ON c.channel_id = n.log_id
        WHERE n.sequence > c.last_read ORDER BY n.created_at DESC, n.event_id DESC LIMIT $4
    ), found AS (SELECT coalesce(count(*) >= $4, false) AS is_full FROM recent)
    SELECT log_id, sequence, event_id, created_at, direct, guild_id, last_read FROM recent WHERE (SELECT is_full FROM found)
    UNION ALL (
        SELECT {_DIRECT} FROM own AS c, LATERAL (
            SELECT n.log_id, n.sequence, n.event_id, n.created_at FROM mentions AS n
            WHERE n.user_id = $1 AND n.log_id = c.channel_id AND n.sequence > c.last_read OFFSET 0
        ) AS n WHERE NOT (SELECT is_full FROM found) AND {OLDER} ORDER BY n.created_at DESC, n.event_id DESC LIMIT $4
    )"""
)

# Stores mentions of those users in $1 who may read the channel of the message. Locks their logs in order, so that none is deleted
# before the mention is appended.
MENTION_USERS = """
WITH readers AS MATERIALIZED (
    SELECT n.user_id, n.log_id, n.sequence, n.event_id, n.created_at
    FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::timestamptz[])
        AS n (user_id, log_id, sequence, event_id, created_at)
    JOIN channels AS c ON c.channel_id = n.log_id JOIN logs AS l ON l.log_id = n.user_id
    WHERE EXISTS (SELECT FROM guild_memberships AS g WHERE g.guild_id = c.guild_id AND g.user_id = n.user_id)
       OR EXISTS (SELECT FROM channel_memberships AS m WHERE m.channel_id = c.channel_id AND m.user_id = n.user_id)
    ORDER BY n.user_id FOR NO KEY UPDATE OF l
)
INSERT INTO mentions (user_id, log_id, sequence, event_id, created_at)
SELECT user_id, log_id, sequence, event_id, created_at FROM readers RETURNING event_id, user_id
"""
MENTION_MANY = """
INSERT INTO mentions_of_many (log_id, sequence, event_id, created_at, sender_id, roles, everyone)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""


def mentions_somebody(effects: Iterable[AppendEvent]) -> bool:
    """Return whether `note_mentions` has anything to write."""
    return any(effect.mentions != NOBODY for effect in effects)


async def note_mentions(tx: Transaction, effects: Sequence[AppendEvent], outcomes: Sequence[Outcome]) -> None:
    """Store the mentions of messages stored in this transaction, and append them to the logs of single users."""
    stored = [
        (effect, outcome.event)
        for effect, outcome in zip(effects, outcomes, strict=True)
        if effect.mentions != NOBODY and isinstance(outcome, Appended) and not outcome.repeated
    ]
    for effect, event in stored:
        if effect.mentions.of_many:
            await tx.connection.execute(
                MENTION_MANY, event.log_id, event.sequence, event.event_id, moment(event.created_at_ms),
                effect.sender_id, effect.mentions.roles, effect.mentions.everyone,
            )  # fmt: skip
    named = [
        (user, event.log_id, event.sequence, event.event_id, moment(event.created_at_ms))
        for effect, event in stored
        for user in effect.mentions.users
        if user != effect.sender_id
    ]
    if not named:
        return
    rows = await tx.connection.fetch(MENTION_USERS, *zip(*named, strict=True))
    readers: dict[str, list[str]] = {}
    for row in rows:
        readers.setdefault(row["event_id"], []).append(str(row["user_id"]))
    await tx.append_each(
        [
            (mentioned(readers.get(event.event_id, ()), event), effect.sender_id, event.created_at_ms)
            for effect, event in stored
        ]
    )


@performs(ListMentions, Mode.QUERY)
async def list_mentions(connection: Connection, effect: ListMentions) -> tuple[MentionRecord, ...]:
    inbox = UNREAD_INBOX if effect.unread else INBOX
    rows = await connection.fetch(inbox, effect.user_id, ROLES, effect.unread, effect.limit, *bound(effect.after))
    return tuple(MENTION.record(row) for row in rows)


async def count_unread_mentions(connection: Connection, user_id: str, channel_id: str) -> int:
    """Return how many unread messages of the channel mention the user."""
    count: int | None = await connection.fetchval(UNREAD_OF, user_id, ROLES, channel_id)
    return count or 0

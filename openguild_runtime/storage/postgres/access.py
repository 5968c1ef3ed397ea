"""Reads the roles of users in guilds and channels."""

from __future__ import annotations

from collections.abc import Sequence

from openguild_proto.effects.channels import FindChannelAccess, PageBounds
from openguild_proto.effects.guilds import FindGuildAccess
from openguild_proto.effects.performs import performs
from openguild_proto.event_page import EventPage
from openguild_proto.limits import MAX_SEQUENCE
from openguild_proto.records import (
    ChannelAccess,
    ChannelRecord,
    GuildAccess,
    GuildRecord,
    LogPosition,
)
from openguild_runtime.storage.migrations.first.timeouts import guild_role_now
from openguild_runtime.storage.postgres.columns import Columns
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.values import Connection, Row, texts

# the server roles of user `$2`, by (granted_at, role)
SERVER_ROLES = "ARRAY(SELECT role FROM user_roles WHERE user_id = $2 ORDER BY granted_at, role)"
ROLE_NOW = guild_role_now("m.role", guild="m.guild_id", user="m.user_id")
GUILD = Columns(GuildRecord)
CHANNEL = Columns(ChannelRecord)
# channels with the heads of their logs
CHANNELS = f"(SELECT {CHANNEL}, head_sequence FROM channels JOIN logs ON log_id = channel_id) AS c"
ACCESS = f"""
SELECT a.place, {CHANNEL.of("c")}, c.head_sequence, a.guild_role, a.channel_role, a.server_roles
FROM channel_access_v1($1, $2) AS a JOIN {CHANNELS} ON c.channel_id = a.channel_id
"""

# The row of the first user also has a page of the channel's log. The log is given as a parameter, so that PostgreSQL reads
# only one partition.
_PAGED_ACCESS = """
SELECT a.place, {channel}, c.head_sequence, a.guild_role, a.channel_role, a.server_roles, page.sequences, page.wires
FROM channel_access_v1(array_fill($1::uuid, ARRAY[cardinality($2::uuid[])]), $2) AS a
JOIN {channels} ON c.channel_id = a.channel_id
CROSS JOIN LATERAL (
    SELECT array_agg(sequence ORDER BY sequence) AS sequences, array_agg(wire ORDER BY sequence) AS wires
    FROM (SELECT sequence, wire FROM log_events WHERE log_id = $1 AND a.place = 1 AND {bound} LIMIT $4) AS e
) AS page
"""
_PAGED = {"channel": CHANNEL.of("c"), "channels": CHANNELS}
ACCESS_AND_FIRST = _PAGED_ACCESS.format(bound="sequence > $3 ORDER BY sequence", **_PAGED)
ACCESS_AND_LAST = _PAGED_ACCESS.format(bound="sequence < $3 ORDER BY sequence DESC", **_PAGED)


@performs(FindGuildAccess, Mode.QUERY)
async def find_guild_access(connection: Connection, effect: FindGuildAccess) -> GuildAccess | None:
    row = await connection.fetchrow(
        f"""
        SELECT {GUILD.of("g")}, {ROLE_NOW} AS role, {SERVER_ROLES} AS server_roles, l.epoch, l.head_sequence, l.base_sequence
        FROM guilds AS g JOIN logs AS l ON l.log_id = g.guild_id
        LEFT JOIN guild_memberships AS m ON m.guild_id = g.guild_id AND m.user_id = $2
        WHERE g.guild_id = $1
        """,
        effect.guild_id,
        effect.user_id,
    )
    if row is None:
        return None
    return GuildAccess(
        guild=GUILD.record(row),
        role=row["role"],
        server_roles=texts(row["server_roles"]),
        place=LogPosition(effect.guild_id, row["epoch"], row["head_sequence"]),
        base=row["base_sequence"] or 0,
    )


async def find_channel_accesses(
    connection: Connection, effects: Sequence[FindChannelAccess]
) -> list[ChannelAccess | None]:
    """Return one result for each effect, in order."""
    channels, users = [effect.channel_id for effect in effects], [effect.user_id for effect in effects]
    rows = await connection.fetch(ACCESS, channels, users)
    found: list[ChannelAccess | None] = [None] * len(effects)
    for row in rows:
        found[row["place"] - 1] = _channel_access(row)
    return found


async def find_access_and_page(
    connection: Connection, effect: FindChannelAccess, page: PageBounds
) -> ChannelAccess | None:
    """Return the access of one user with the page, in one statement."""
    return (await find_accesses_and_page(connection, effect.channel_id, page, [effect.user_id]))[0]


async def find_accesses_and_page(
    connection: Connection, channel_id: str, page: PageBounds, user_ids: Sequence[str]
) -> list[ChannelAccess | None]:
    """Return the access of each user, in order, with the same page, in one statement."""
    if page.after is not None:
        statement, bound = ACCESS_AND_FIRST, page.after
    else:
        statement, bound = ACCESS_AND_LAST, MAX_SEQUENCE if page.before is None else page.before
    rows = await connection.fetch(statement, channel_id, user_ids, bound, max(0, page.limit))
    found: list[ChannelAccess | None] = [None] * len(user_ids)
    events = EventPage()
    for row in rows:
        if row["sequences"]:
            events.events = tuple(zip(row["sequences"], row["wires"], strict=True))
        found[row["place"] - 1] = _channel_access(row, events)
    return found


def _channel_access(row: Row, page: EventPage | None = None) -> ChannelAccess:
    return ChannelAccess(
        channel=CHANNEL.record(row),
        guild_role=row["guild_role"],
        channel_role=row["channel_role"],
        server_roles=texts(row["server_roles"]),
        head=row["head_sequence"],
        page=page,
    )

"""Reads the roles of users in guilds and channels."""

from __future__ import annotations

from collections.abc import Sequence

from openguild_proto.effects.channels import FindChannelAccess
from openguild_proto.effects.guilds import FindGuildAccess
from openguild_proto.effects.performs import performs
from openguild_proto.records import ChannelAccess, ChannelRecord, GuildAccess, GuildRecord, LogPlace
from openguild_runtime.storage.postgres.columns import Columns
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.values import Connection, texts

# server roles of a user, by (granted_at, role); `$2` is the user id
SERVER_ROLES = "ARRAY(SELECT role FROM user_roles WHERE user_id = $2 ORDER BY granted_at, role)"
GUILD = Columns(GuildRecord)
CHANNEL = Columns(ChannelRecord)
CHANNELS = (
    f"(SELECT {CHANNEL}, head_sequence FROM channels JOIN logs ON log_id = channel_id) AS c"  # with where its log is
)
CHANNEL_ACCESS = f"""
SELECT given.place, {CHANNEL.of("c")}, c.head_sequence,
    g.role AS guild_role, m.role AS channel_role,
    ARRAY(SELECT role FROM user_roles AS r WHERE r.user_id = given.reader_id ORDER BY granted_at, role) AS server_roles
FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS given (asked_id, reader_id, place)
JOIN {CHANNELS} ON c.channel_id = given.asked_id
LEFT JOIN guild_memberships AS g ON g.guild_id = c.guild_id AND g.user_id = given.reader_id
LEFT JOIN channel_memberships AS m ON m.channel_id = c.channel_id AND m.user_id = given.reader_id
"""


@performs(FindGuildAccess, Mode.QUERY)
async def find_guild_access(connection: Connection, effect: FindGuildAccess) -> GuildAccess | None:
    row = await connection.fetchrow(
        f"""
        SELECT {GUILD.of("g")}, m.role, {SERVER_ROLES} AS server_roles, l.epoch, l.head_sequence
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
        place=LogPlace(effect.guild_id, row["epoch"], row["head_sequence"]),
    )


async def find_channel_accesses(
    connection: Connection, effects: Sequence[FindChannelAccess]
) -> list[ChannelAccess | None]:
    """Return one result for each effect, in order."""
    rows = await connection.fetch(
        CHANNEL_ACCESS,
        [effect.channel_id for effect in effects],
        [effect.user_id for effect in effects],
    )
    found: list[ChannelAccess | None] = [None] * len(effects)
    for row in rows:
        found[row["place"] - 1] = ChannelAccess(
            channel=CHANNEL.record(row),
            guild_role=row["guild_role"],
            channel_role=row["channel_role"],
            server_roles=texts(row["server_roles"]),
            head=row["head_sequence"],
        )
    return found

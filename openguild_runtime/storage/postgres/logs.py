"""Logs of every kind in PostgreSQL: their positions, and reads of several logs at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from openguild_proto.effects.logs import AccountMemberships, FindAccountMemberships, FindLogHead, FindLogs, ReadLogs
from openguild_proto.effects.performs import performs, performs_many
from openguild_proto.records import LogAccess, LogPosition, StoredEvent
from openguild_runtime.storage.postgres.access import GUILD, SERVER_ROLES
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.values import Connection, Row, texts, to_millis

# The logs of guild $1 and of its channels. As an array, because with OR PostgreSQL reads all logs of the server.
OF_GUILD = "ANY (ARRAY(SELECT $1::uuid UNION ALL SELECT channel_id FROM channels WHERE guild_id = $1))"


@performs(FindLogHead, Mode.QUERY)
async def find_log_head(connection: Connection, effect: FindLogHead) -> LogPosition | None:
    row = await connection.fetchrow("SELECT log_id, epoch, head_sequence FROM logs WHERE log_id = $1", effect.log_id)
    return _place(row) if row is not None else None


@performs(FindLogs, Mode.QUERY)
async def find_logs(connection: Connection, effect: FindLogs) -> tuple[LogAccess, ...]:
    rows = await connection.fetch(
        f"""
        SELECT l.log_id, l.kind, l.epoch, l.head_sequence, l.base_sequence, g.role AS guild_role, m.role AS channel_role,
            (SELECT {SERVER_ROLES}) AS server_roles
        FROM logs AS l
        LEFT JOIN LATERAL (SELECT guild_id FROM channels WHERE channel_id = l.log_id LIMIT 1) AS c ON true
        LEFT JOIN guild_memberships AS g ON g.guild_id = coalesce(c.guild_id, l.log_id) AND g.user_id = $2
        LEFT JOIN channel_memberships AS m ON m.channel_id = l.log_id AND m.user_id = $2
        WHERE l.log_id = ANY ($1::uuid[]) ORDER BY l.log_id
        """,
        effect.log_ids,
        effect.user_id,
    )
    return tuple(_access(row) for row in rows)


@performs_many(FindAccountMemberships, Mode.GROUPED)
async def find_account_memberships(
    connection: Connection, effects: Sequence[FindAccountMemberships]
) -> list[AccountMemberships | None]:
    rows = await connection.fetch(
        f"""
        SELECT own.log_id, own.epoch AS own_epoch, own.head_sequence AS own_head, {GUILD}, theirs.epoch, theirs.head_sequence
        FROM logs AS own LEFT JOIN LATERAL (
            SELECT {GUILD}, l.epoch, l.head_sequence FROM guilds JOIN logs AS l ON l.log_id = guild_id
            WHERE guild_id IN (SELECT guild_id FROM guild_memberships WHERE user_id = own.log_id)
        ) AS theirs ON true
        WHERE own.log_id = ANY ($1::uuid[]) ORDER BY own.log_id, created_at, guild_id
        """,
        list({effect.user_id for effect in effects}),
    )
    found = {user_id: _account(user_id, list(of_user)) for user_id, of_user in groupby(rows, _log_id)}
    return [found.get(effect.user_id) for effect in effects]


def _log_id(row: Row) -> str:
    return str(row["log_id"])


def _account(user_id: str, rows: Sequence[Row]) -> AccountMemberships:
    return AccountMemberships(
        LogPosition(user_id, rows[0]["own_epoch"], rows[0]["own_head"]),
        tuple(
            (GUILD.record(row), LogPosition(str(row["guild_id"]), row["epoch"], row["head_sequence"]))
            for row in rows
            if row["guild_id"] is not None
        ),
    )


def _access(row: Row) -> LogAccess:
    memberships = {"channel": (row["guild_role"], row["channel_role"]), "guild": (row["guild_role"],)}
    kind = row["kind"]
    roles = texts(row["server_roles"])
    return LogAccess(kind, _place(row), memberships.get(kind, ()), roles, row["base_sequence"] or 0)


def _place(row: Row) -> LogPosition:
    return LogPosition(str(row["log_id"]), row["epoch"], row["head_sequence"])


@performs(ReadLogs, Mode.QUERY)
async def read_logs(connection: Connection, effect: ReadLogs) -> tuple[StoredEvent, ...]:
    rows = await connection.fetch(
        """
        SELECT part.log_id, e.sequence, e.event_id, e.wire, e.created_at
        FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS part (log_id, after, size, place),
        LATERAL (
            SELECT sequence, event_id, wire, created_at FROM log_events
            WHERE log_id = part.log_id AND sequence > part.after AND sequence <= part.after + part.size
            ORDER BY sequence LIMIT part.size
        ) AS e ORDER BY part.place, e.sequence
        """,
        [part.log_id for part in effect.parts],
        [part.after for part in effect.parts],
        [part.size for part in effect.parts],
    )
    return tuple(
        StoredEvent(str(row["log_id"]), row["sequence"], row["event_id"], row["wire"], to_millis(row["created_at"]))
        for row in rows
    )

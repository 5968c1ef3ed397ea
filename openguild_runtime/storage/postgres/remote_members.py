"""Users of other servers as members of this server's guilds, in PostgreSQL."""

from __future__ import annotations

from openguild_proto.effects.guilds import AcceptInvite
from openguild_proto.effects.mirrors import JoinFromServer, KnowRemoteUser, ReadSnapshot, RemoteJoin
from openguild_proto.effects.performs import performs
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.mirror_records import MirroredChannel, MirroredMember, RemoteUser, Snapshot
from openguild_proto.records import Author, LimitReached, LogPosition, MemberRecord
from openguild_runtime.storage.postgres.ban_checks import ENTRY, all_bans
from openguild_runtime.storage.postgres.invites import accept_invite
from openguild_runtime.storage.postgres.logs import OF_GUILD
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, moment, rows_changed, to_millis, to_millis_or_none
from openguild_runtime.system.turns import Pauses

# Only a user's home server may rename them, so the calling server $6 renames only its own users. Names of accounts never begin
# with the control character, so that remote users use up no name, and nobody can log in as one. If a log has the ID without a
# user, it is that of a guild or channel, and the ID is taken.
KNOW_USERS = """
WITH given AS (
    SELECT DISTINCT ON (user_id) user_id, username, display_name, origin
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS row (user_id, username, display_name, origin)
), renamed AS (
    UPDATE users AS u SET username = given.username, display_name = given.display_name, updated_at = $5
    FROM given WHERE u.user_id = given.user_id AND u.origin = given.origin AND u.origin = $6
        AND (u.username, u.display_name) IS DISTINCT FROM (given.username, given.display_name)
), added AS (
    INSERT INTO users (user_id, username, username_key, password_hash, created_at, updated_at, display_name, origin)
    SELECT user_id, username, E'\\x1f' || user_id, '', $5, $5, display_name, origin FROM given
    WHERE NOT EXISTS (SELECT FROM logs WHERE log_id = given.user_id)
    ON CONFLICT (user_id) DO NOTHING RETURNING user_id
)
INSERT INTO logs (log_id, kind) SELECT user_id, 'user' FROM added
"""
# Runs with each proposal and request, and writes only changed names.
RENAME = """
WITH renamed AS (
    UPDATE users SET username = $2, display_name = $3, updated_at = $5
    WHERE user_id = $1 AND origin = $4 AND (username, display_name) IS DISTINCT FROM ($2::text, $3::text)
)
SELECT origin FROM users WHERE user_id = $1
"""
# Joins of a peer's users to a guild wait for each other, because before the first there is no row of the mirror to lock.
TAKE_TURN = f"""
SELECT pg_advisory_xact_lock(hashtextextended('join ' || $1::text || ' ' || guild_id, 0)),
    {ENTRY.format(guild_id="guild_id", user_id="$3")} FROM invites WHERE code = $2
"""
HOLD_USER = "SELECT FROM users WHERE user_id = $1 FOR NO KEY UPDATE"
# As a deletion of a channel does, because a new mirror gets a cursor in each channel.
HOLD_GUILD = "SELECT FROM guilds WHERE guild_id = (SELECT guild_id FROM invites WHERE code = $1) FOR NO KEY UPDATE"
# Locked after the user and the guild and before the guild's log, as when a removal or a deletion ends the mirror.
HOLD_MIRROR = """
SELECT FROM federation_guilds WHERE peer = $1 AND guild_id = (SELECT guild_id FROM invites WHERE code = $2) FOR UPDATE
"""
BEGIN_MIRROR = """
INSERT INTO federation_guilds AS f (peer, guild_id, since) VALUES ($1, $2, $3)
ON CONFLICT (peer, guild_id) DO UPDATE SET since = EXCLUDED.since, ended_at = NULL, purged_at = NULL
WHERE f.ended_at IS NOT NULL
"""
# Only for peers without cursors: a peer that has not purged its former mirror continues from there.
BEGIN_AT_HEADS = f"""
INSERT INTO federation_cursors (peer, log_id, epoch, sequence)
SELECT $2, log_id, epoch, head_sequence FROM logs WHERE log_id = {OF_GUILD}
AND NOT EXISTS (SELECT FROM federation_cursors WHERE peer = $2 AND log_id = $1) ON CONFLICT DO NOTHING
"""
MOVE_TO_EPOCHS = f"""
UPDATE federation_cursors AS c SET epoch = l.epoch, sequence = l.head_sequence FROM logs AS l
WHERE c.peer = $2 AND c.log_id = l.log_id AND c.epoch <> l.epoch AND l.log_id = {OF_GUILD}
AND EXISTS (SELECT FROM federation_guilds WHERE peer = $2 AND guild_id = $1 AND ended_at IS NULL)
"""
FOLLOWED = "SELECT FROM federation_guilds WHERE peer = $1 AND guild_id = $2 AND ended_at IS NULL"
# Read in parts, because the driver decodes each result without yielding to the loop. Not with asyncpg's cursors, whose named
# statements a pooler may leave behind in another session.
MEMBERS = """
DECLARE members NO SCROLL CURSOR FOR SELECT u.user_id, u.username, m.role, m.joined_at, u.display_name, u.origin,
    (SELECT t.ends_at FROM guild_timeouts AS t WHERE t.guild_id = $1 AND t.user_id = m.user_id AND t.ends_at > now()) AS timed_out
FROM guild_memberships AS m JOIN users AS u USING (user_id) WHERE m.guild_id = $1
"""
NEXT_MEMBERS = "FETCH 500 FROM members"
CHANNELS = """
SELECT c.channel_id, c.name, c.created_at, l.epoch, l.head_sequence, l.message_count, c.topic, c.position
FROM channels AS c JOIN logs AS l ON l.log_id = c.channel_id WHERE c.guild_id = $1
"""
ROLES = """
SELECT m.channel_id, m.user_id, m.role FROM channel_memberships AS m JOIN channels AS c USING (channel_id)
WHERE c.guild_id = $1
"""
GUILD = """
SELECT g.name, g.created_at, g.term, g.serial, l.epoch, l.head_sequence FROM guilds AS g JOIN logs AS l ON l.log_id = g.guild_id
WHERE g.guild_id = $1
"""


async def join_from_server(
    tx: Transaction, effect: JoinFromServer
) -> tuple[RemoteJoin | LimitReached | None, ReadSnapshot | None]:
    """Return the result without its snapshot, and the effect that reads the snapshot, or None if none is needed.

    The snapshot is read after the commit, because a large guild takes seconds while the guild's and the control log are locked.
    """
    if not await tx.connection.fetchval("SELECT EXISTS (SELECT FROM invites WHERE code = $1)", effect.code):
        return None, None
    await tx.connection.execute(TAKE_TURN, effect.peer, effect.code, effect.user.user_id)
    await _know(tx, effect.peer, effect.user, effect.now_ms)
    await tx.connection.execute(HOLD_USER, effect.user.user_id)
    await tx.connection.execute(HOLD_GUILD, effect.code)
    await tx.connection.execute(HOLD_MIRROR, effect.peer, effect.code)
    member = await accept_invite(
        tx,
        AcceptInvite(
            author=Author(effect.user.user_id),
            code=effect.code,
            role=effect.role,
            now_ms=effect.now_ms,
            limit=effect.limit,
        ),
    )
    if not isinstance(member, MemberRecord):
        return member, None
    guild_id = member.guild_id
    began = await tx.connection.execute(BEGIN_MIRROR, effect.peer, guild_id, moment(effect.now_ms))
    begins = rows_changed(began) == 1
    if begins:
        await tx.connection.execute(BEGIN_AT_HEADS, guild_id, effect.peer)
    row = await tx.connection.fetchrow("SELECT epoch, head_sequence FROM logs WHERE log_id = $1", guild_id)
    place = (
        LogPosition(guild_id, row["epoch"], row["head_sequence"]) if row is not None else LogPosition(guild_id, 0, 0)
    )
    wanted = ReadSnapshot(effect.peer, guild_id) if effect.wants_snapshot or begins else None
    return RemoteJoin(guild_id, MirroredMember.of(member), place, None), wanted


async def move_cursors(tx: Transaction, effect: ReadSnapshot) -> None:
    """Move cursors of former epochs to the heads, before the snapshot is read, so that none is ahead of the mirror."""
    await tx.connection.execute("SELECT FROM guilds WHERE guild_id = $1 FOR KEY SHARE", effect.guild_id)
    await tx.connection.execute(
        "SELECT FROM federation_guilds WHERE peer = $1 AND guild_id = $2 FOR UPDATE", effect.peer, effect.guild_id
    )
    await tx.connection.execute(MOVE_TO_EPOCHS, effect.guild_id, effect.peer)


@performs(KnowRemoteUser, Mode.CHANGE)
async def know_remote_user(connection: Connection, effect: KnowRemoteUser) -> None:
    user = effect.user
    row = await connection.fetchrow(
        RENAME, user.user_id, user.username, user.display_name, effect.peer, moment(effect.now_ms)
    )
    if row is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    if row["origin"] != effect.peer:
        raise Refusal(ErrorCode.ID_TAKEN)


async def _know(tx: Transaction, peer: str, user: RemoteUser, now_ms: int) -> None:
    await tx.connection.execute(
        KNOW_USERS, [user.user_id], [user.username], [user.display_name], [peer], moment(now_ms), peer
    )
    origin = await tx.connection.fetchval("SELECT origin FROM users WHERE user_id = $1", user.user_id)
    if origin != peer:
        raise Refusal(ErrorCode.ID_TAKEN)


async def read_snapshot(tx: Transaction, effect: ReadSnapshot) -> Snapshot | None:
    """Read the guild in one snapshot, without locks. Return None if the peer does not mirror it."""
    guild_id = effect.guild_id
    if await tx.connection.fetchrow(FOLLOWED, effect.peer, guild_id) is None:
        return None
    guild = await tx.connection.fetchrow(GUILD, guild_id)
    if guild is None:
        return None
    roles: dict[str, dict[str, str]] = {}
    pauses = Pauses()
    for row in await tx.connection.fetch(ROLES, guild_id):
        roles.setdefault(str(row["channel_id"]), {})[str(row["user_id"])] = row["role"]
        await pauses.pause_if_due()
    members: list[MirroredMember] = []
    await tx.connection.execute(MEMBERS, guild_id)
    while rows := await tx.connection.fetch(NEXT_MEMBERS):
        for row in rows:
            joined_at_ms = to_millis(row["joined_at"])
            members.append(
                MirroredMember(
                    str(row["user_id"]),
                    row["username"],
                    row["role"],
                    joined_at_ms,
                    row["display_name"],
                    row["origin"],
                    to_millis_or_none(row["timed_out"]),
                )
            )
            await pauses.pause_if_due()
    channels = [
        MirroredChannel(
            str(row["channel_id"]),
            row["name"],
            to_millis(row["created_at"]),
            row["epoch"],
            row["head_sequence"],
            row["message_count"],
            row["topic"],
            row["position"],
            roles.get(str(row["channel_id"]), {}),
        )
        for row in await tx.connection.fetch(CHANNELS, guild_id)
    ]
    return Snapshot(
        guild_id,
        guild["name"],
        to_millis(guild["created_at"]),
        guild["epoch"],
        guild["head_sequence"],
        members=members,
        channels=channels,
        term=guild["term"],
        serial=guild["serial"],
        bans=await all_bans(tx.connection, guild_id),
    )

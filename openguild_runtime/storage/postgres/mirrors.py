"""Mirrors of other servers' guilds in PostgreSQL. For their events see mirror_events.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from openguild_proto.canonical.keys import decode_unpadded
from openguild_proto.effects import Overloaded
from openguild_proto.effects.mirrors import DropMirror, FindMirrorHead, StoreMirror, is_behind
from openguild_proto.effects.performs import performs
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.mirror_records import MirroredChannel, MirroredMember, Snapshot, place_of
from openguild_proto.records import ControlKind, GuildRecord, LogPosition, MemberRecord
from openguild_proto.schemas.events import parse_content, parse_event
from openguild_proto.schemas.log_entries import Entries, joined_guild, left_guild
from openguild_proto.schemas.payloads import channel_ids_body
from openguild_runtime.storage.postgres.access import GUILD
from openguild_runtime.storage.postgres.ban_checks import add_bans
from openguild_runtime.storage.postgres.deleted_logs import HOLD_LOGS, DeleteLogs, delete_replaced_logs, end_logs
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.remote_members import KNOW_USERS
from openguild_runtime.storage.postgres.timeouts import keep_timeouts
from openguild_runtime.storage.postgres.transaction import GuildControl, Transaction
from openguild_runtime.storage.postgres.values import Connection, moment, rows_changed, texts

# Concurrent joins of a guild's first members wait for each other, because there is no row yet to lock.
TAKE_TURN = "SELECT pg_advisory_xact_lock(hashtextextended('mirror ' || $1::uuid::text, 0))"
# Locks members of this server before the guild, because a replaced mirror refers to them again. The owner may name any users.
HOLD_OWN = """
SELECT user_id::text FROM users AS u WHERE user_id = ANY ($1::uuid[]) AND (user_id = $2 OR EXISTS (
    SELECT FROM guild_memberships AS m WHERE m.guild_id = $3 AND m.user_id = u.user_id
)) ORDER BY u.user_id FOR NO KEY UPDATE
"""
HOLD_GUILD = f"SELECT {GUILD} FROM guilds WHERE guild_id = $1 FOR UPDATE"
ADD_GUILD = """
WITH log AS (
    INSERT INTO logs (log_id, kind, epoch, head_sequence, base_sequence) VALUES ($1, 'guild', $5, $6, $6)
)
INSERT INTO guilds (guild_id, name, created_at, origin, term, serial) VALUES ($1, $2, $3, $4, $7, $8)
"""
ADD_MIRROR = """
INSERT INTO federation_mirrors (log_id, guild_id, hash, first_sequence, first_hash) VALUES ($1, $1, $2, $3, $2)
"""
ADD_CHANNELS = """
WITH given AS (
    SELECT channel_id, name, created_at, epoch, head, messages, topic, position, hash FROM unnest(
        $2::uuid[], $3::text[], $4::timestamptz[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::integer[],
        $10::bytea[]
    ) AS row (channel_id, name, created_at, epoch, head, messages, topic, position, hash)
), log AS (
    INSERT INTO logs (log_id, kind, epoch, head_sequence, message_count, base_sequence)
    SELECT channel_id, 'channel', epoch, head, messages, head FROM given
), mirror AS (
    INSERT INTO federation_mirrors (log_id, guild_id, hash, first_sequence, first_hash)
    SELECT channel_id, $1, hash, head, hash FROM given
)
INSERT INTO channels (channel_id, guild_id, name, created_at, topic, position, origin)
SELECT channel_id, $1, name, created_at, topic, position, $11 FROM given
"""
ADD_MEMBERS = """
INSERT INTO guild_memberships (guild_id, user_id, role, joined_at)
SELECT $1, u.user_id, given.role, given.joined_at
FROM unnest($2::uuid[], $3::text[], $4::timestamptz[], $5::text[]) AS given (user_id, role, joined_at, origin)
JOIN users AS u ON u.user_id = given.user_id AND u.origin IS NOT DISTINCT FROM given.origin
ON CONFLICT DO NOTHING
"""
# Users of this server who are not members have no roles in a mirror (PROTOCOL 16.5.5).
ADD_ROLES = """
INSERT INTO channel_memberships (channel_id, user_id, role, joined_at)
SELECT given.channel_id, u.user_id, given.role, $4
FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS given (channel_id, user_id, role)
JOIN users AS u USING (user_id) JOIN channels AS c USING (channel_id)
WHERE u.origin IS NOT NULL OR EXISTS (
    SELECT FROM guild_memberships AS m WHERE m.guild_id = c.guild_id AND m.user_id = u.user_id
)
ON CONFLICT (channel_id, user_id) DO UPDATE SET role = EXCLUDED.role
"""
READ_ALL = """
SELECT FROM mark_read_v1(ARRAY(
    SELECT channel_id FROM channels JOIN logs ON log_id = channel_id WHERE guild_id = $1 AND head_sequence > 0
), $2, NULL, $3)
"""
# A mirror that restarts keeps the positions that `ClearMirror` has moved to the heads. $1: of its former channels.
DROP_POSITIONS = """
DELETE FROM channel_read_state AS s WHERE channel_id = ANY ($1::uuid[]) AND NOT EXISTS (
    SELECT FROM channels AS c JOIN logs AS l ON l.log_id = c.channel_id
    WHERE c.guild_id = $2 AND c.channel_id = s.channel_id AND s.user_id = ANY ($3::uuid[]) AND l.head_sequence > 0
        AND (s.last_read_sequence, s.last_read_messages, s.own_since) = (l.head_sequence, l.message_count, 0)
)
"""
# Channels in which all have positions, after `DROP_POSITIONS`, are counted, which takes a tenth of looking up each position.
ALL_READ_ALL = """
WITH complete AS MATERIALIZED (
    SELECT s.channel_id FROM channel_read_state AS s JOIN channels AS c USING (channel_id) WHERE c.guild_id = $1
    GROUP BY s.channel_id HAVING count(*) = cardinality($2::uuid[])
)
INSERT INTO channel_read_state (channel_id, user_id, last_read_sequence, last_read_messages, updated_at)
SELECT c.channel_id, given.user_id, l.head_sequence, l.message_count, given.joined_at
FROM unnest($2::uuid[], $3::timestamptz[]) AS given (user_id, joined_at),
    channels AS c JOIN logs AS l ON l.log_id = c.channel_id
WHERE c.guild_id = $1 AND l.head_sequence > 0 AND c.channel_id NOT IN (SELECT channel_id FROM complete) AND NOT EXISTS (
    SELECT FROM channel_read_state AS s WHERE s.channel_id = c.channel_id AND s.user_id = given.user_id
)
"""
OWN_MEMBERS = """
SELECT m.user_id FROM guild_memberships AS m JOIN users AS u USING (user_id) WHERE m.guild_id = $1 AND u.origin IS NULL
"""
# Invites of a guild that was handed over lead to its owner, also after its mirror was replaced (PROTOCOL 16.10.9).
INVITES = "SELECT jsonb_agg(to_jsonb(i))::text FROM invites AS i WHERE guild_id = $1"
ADD_INVITES = """
INSERT INTO invites (code, guild_id, created_by, max_uses, uses, expires_at, created_at)
SELECT code, guild_id, created_by, max_uses, uses, expires_at, created_at
FROM jsonb_populate_recordset(NULL::invites, $1::text::jsonb)
"""
NOT_PENDING = "DELETE FROM federation_partings WHERE origin = $1 AND guild_id = $2 AND user_id = $3"
BEGINS_AFTER = "SELECT base_sequence > $2 FROM logs WHERE log_id = $1"
# Events that contain the user's ID. Not parsed as JSON, because another server may have sent JSON that PostgreSQL refuses.
GONE = """
SELECT wire FROM log_events WHERE log_id = $1 AND sequence > $2 AND event_type IN ('member.left', 'member.removed')
AND position(convert_to($3::text, 'UTF8') IN wire) > 0
"""
# Whether one of these IDs is a log of another guild or kind.
TAKEN = """
SELECT EXISTS (
    SELECT FROM unnest($1::uuid[]) AS id JOIN logs ON log_id = id LEFT JOIN channels ON channel_id = id
    WHERE guild_id IS DISTINCT FROM $2
)
"""
BEING_DELETED = "SELECT EXISTS (SELECT FROM deleted_logs WHERE log_id = ANY ($1::uuid[]))"


@performs(StoreMirror, Mode.TRANSACTION)
async def store_mirror(tx: Transaction, effect: StoreMirror) -> bool:
    snapshot, joined = effect.snapshot, effect.joined
    here_too = [each for each in snapshot.members if each.origin == tx.server_name] if snapshot is not None else []
    users = {each.user_id for each in (*here_too, *((joined,) if joined is not None else ()))}
    joined_id = joined.user_id if joined is not None else None
    held = await tx.connection.fetch(HOLD_OWN, list(users), joined_id, effect.guild_id)
    if joined_id is not None and joined_id not in {row["user_id"] for row in held}:  # the account was deleted meanwhile
        raise Refusal(ErrorCode.UNAUTHORIZED)
    if snapshot is not None:
        await tx.connection.execute(TAKE_TURN, effect.guild_id)
    guild = await hold_mirror(tx, effect.guild_id)
    if guild is not None and guild.origin != effect.origin:
        raise Refusal(ErrorCode.ID_TAKEN)
    if snapshot is not None:
        await know_users(tx, effect.origin, snapshot.members, effect.now_ms)
    here = await log_place(tx.connection, effect.guild_id) if guild is not None else None
    if snapshot is None and (here is None or (effect.stands is not None and is_behind(here, effect.stands))):
        return False
    begins = snapshot is not None and (here is None or is_behind(here, place_of(snapshot)))
    if (
        not begins
        and effect.stands is not None
        and await tx.connection.fetchval(BEGINS_AFTER, *_sequence(effect.stands))
    ):
        return False
    renews, admitted, gone = False, None, []
    if snapshot is not None and begins:
        renews = guild is not None
        gone = await _store(tx, effect.origin, snapshot, anew=renews)
        guild = GuildRecord(effect.guild_id, snapshot.name, snapshot.created_at_ms, effect.origin)
    if joined is not None and guild is not None and not await _has_gone(tx.connection, joined, effect.stands):
        await tx.connection.execute(NOT_PENDING, effect.origin, effect.guild_id, joined.user_id)
        admitted = await _admit(tx, guild, joined, effect.now_ms)
    if snapshot is not None and begins:
        await add_roles(tx, snapshot.channels)
    await _tell(tx, effect.guild_id, gone, admitted, effect.now_ms)
    if renews:
        await tx.log(ControlKind.LOGS_RENEWED, guild_id=effect.guild_id)
    return True


async def hold_mirror(tx: Transaction, guild_id: str) -> GuildRecord | None:
    """Lock the row of a guild, if there is one, until the end of the transaction."""
    row = await tx.connection.fetchrow(HOLD_GUILD, guild_id)
    return GUILD.record(row) if row is not None else None


async def log_place(connection: Connection, log_id: str) -> LogPosition:
    """Return the head of a log, or epoch and sequence 0 if there is none."""
    row = await connection.fetchrow("SELECT epoch, head_sequence FROM logs WHERE log_id = $1", log_id)
    return LogPosition(log_id, row["epoch"], row["head_sequence"]) if row is not None else LogPosition(log_id, 0, 0)


def _sequence(place: LogPosition) -> tuple[str, int]:
    return place.log_id, place.sequence


async def _has_gone(connection: Connection, joined: MirroredMember, stands: LogPosition | None) -> bool:
    """Return whether the mirror has an event after `stands`, the time of joining, that the user left or was removed."""
    if stands is None:
        return False
    rows = await connection.fetch(GONE, *_sequence(stands), joined.user_id)
    gone = (parse_content(parse_event(row["wire"])) for row in rows)
    return any(getattr(content, "user_id", None) == joined.user_id for content in gone)


async def _tell(
    tx: Transaction, guild_id: str, gone: Sequence[str], admitted: tuple[str, Entries] | None, now_ms: int
) -> None:
    """Append to the logs of users of this server and to the control log.

    `gone` are no longer members, with time and remover unknown. `admitted` is a new member with the entries for their log.
    """
    if admitted is not None:
        joined, entries = admitted
        await tx.hold_logs([joined, *gone])
        await tx.append(entries, sender=joined, now_ms=now_ms)
    left = [left_guild(guild_id, user_id, removed=True, reason=None) for user_id in gone]
    await tx.append(tuple(chain.from_iterable(left)), sender=None, now_ms=now_ms)
    records = [GuildControl(ControlKind.MEMBER_REMOVED, user_id=user_id) for user_id in gone]
    if admitted is not None:
        records.insert(0, GuildControl(ControlKind.MEMBER_JOINED, user_id=joined))
    await tx.log_of_guild(guild_id, records)


async def _store(tx: Transaction, origin: str, snapshot: Snapshot, *, anew: bool) -> list[str]:
    """Store a snapshot, replacing the mirror if `anew`, and return the users of this server who are no longer members."""
    connection, guild_id = tx.connection, snapshot.guild_id
    channel_ids = [channel.channel_id for channel in snapshot.channels]
    ids = channel_ids if anew else [guild_id, *channel_ids]
    if await connection.fetchval(TAKEN, ids, guild_id):
        raise Refusal(ErrorCode.ID_TAKEN)
    if await connection.fetchval(BEING_DELETED, ids):
        raise Overloaded
    own = set(texts(row["user_id"] for row in await connection.fetch(OWN_MEMBERS, guild_id))) if anew else set()
    invites = await connection.fetchval(INVITES, guild_id)
    former = await clear(tx, guild_id, delete=delete_replaced_logs) if anew else []
    await connection.execute(
        ADD_GUILD,
        guild_id,
        snapshot.name,
        moment(snapshot.created_at_ms),
        origin,
        snapshot.epoch,
        snapshot.sequence,
        snapshot.term,
        snapshot.serial,
    )
    if invites is not None:
        await connection.execute(ADD_INVITES, invites)
    await add_bans(connection, guild_id, snapshot.bans)
    await connection.execute(ADD_MIRROR, guild_id, _hash(snapshot.chain), snapshot.sequence)
    home = tx.server_name
    # Who is a member is decided here, and their role by the owner, whose event of a change may have been missed.
    kept = [
        member for member in snapshot.members if home_of(home, origin, member.origin) is None and member.user_id in own
    ]
    remote = [member for member in snapshot.members if home_of(home, origin, member.origin) is not None]
    await connection.execute(
        ADD_MEMBERS,
        guild_id,
        [member.user_id for member in (*kept, *remote)],
        [member.role for member in (*kept, *remote)],
        [moment(member.joined_at_ms) for member in (*kept, *remote)],
        [*(None for _ in kept), *(member.origin or origin for member in remote)],
    )
    await keep_timeouts(connection, guild_id, snapshot.members)
    await add_channels(tx, origin, guild_id, snapshot.channels)
    kept_ids = [member.user_id for member in kept]
    await connection.execute(DROP_POSITIONS, former, guild_id, kept_ids)
    await connection.execute(ALL_READ_ALL, guild_id, kept_ids, [moment(member.joined_at_ms) for member in kept])
    return sorted(own - set(kept_ids))


async def add_channels(tx: Transaction, origin: str, guild_id: str, lines: Sequence[MirroredChannel]) -> None:
    """Add channels whose logs begin after the given sequence numbers."""
    await tx.connection.execute(
        ADD_CHANNELS,
        guild_id,
        [line.channel_id for line in lines],
        [line.name for line in lines],
        [moment(line.created_at_ms) for line in lines],
        [line.epoch for line in lines],
        [line.sequence for line in lines],
        [line.messages for line in lines],
        [line.topic for line in lines],
        [line.position for line in lines],
        [_hash(line.chain) for line in lines],
        origin,
    )


async def add_roles(tx: Transaction, lines: Sequence[MirroredChannel]) -> None:
    """Add the explicit roles in channels. The members have to be stored before."""
    roles = [(line.channel_id, user_id, role) for line in lines for user_id, role in line.roles.items()]
    if roles:
        await tx.connection.execute(ADD_ROLES, *zip(*roles, strict=True), moment(lines[0].created_at_ms))


def home_of(server_name: str, sender: str, origin: str | None) -> str | None:
    """Return the home server of a user as `sender` reports it, or None for `server_name`. An `origin` of None means `sender`."""
    home = origin if origin is not None else sender
    return None if home == server_name else home


async def know_users(tx: Transaction, origin: str, members: Iterable[MirroredMember], now_ms: int) -> None:
    """Store the names of remote users. Users whose ID belongs to a user of another server are left out."""
    given = [
        (member.user_id, member.username, member.display_name, home)
        for member in sorted(members, key=lambda member: member.user_id)
        if (home := home_of(tx.server_name, origin, member.origin)) is not None
    ]
    if given:
        await tx.connection.execute(KNOW_USERS, *zip(*given, strict=True), moment(now_ms), origin)


async def _admit(
    tx: Transaction, guild: GuildRecord, member: MirroredMember, now_ms: int
) -> tuple[str, Entries] | None:
    """Add a member of this server. Return their ID with the entries for their log, or None if they are a member already."""
    guild_id, user_id = guild.guild_id, member.user_id
    status = await tx.connection.execute(
        """
        INSERT INTO guild_memberships (guild_id, user_id, role, joined_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
        """,
        guild_id,
        user_id,
        member.role,
        moment(member.joined_at_ms),
    )
    if not rows_changed(status):
        return None
    await keep_timeouts(tx.connection, guild_id, [member])
    await tx.connection.execute(READ_ALL, guild_id, user_id, moment(now_ms))
    record = MemberRecord(guild_id, user_id, member.username, member.role, member.joined_at_ms)
    return user_id, joined_guild(guild, record)


@performs(FindMirrorHead, Mode.QUERY)
async def find_mirror_head(connection: Connection, effect: FindMirrorHead) -> LogPosition | None:
    row = await connection.fetchrow(
        """
        SELECT l.epoch, l.head_sequence FROM federation_mirrors AS m JOIN guilds AS g USING (guild_id)
        JOIN logs AS l USING (log_id) WHERE m.log_id = $1 AND g.origin = $2
        """,
        effect.log_id,
        effect.origin,
    )
    return LogPosition(effect.log_id, row["epoch"], row["head_sequence"]) if row is not None else None


@performs(DropMirror, Mode.TRANSACTION)
async def drop_mirror(tx: Transaction, effect: DropMirror) -> bool:
    guild = await hold_mirror(tx, effect.guild_id)
    if guild is None or guild.origin != effect.origin:
        return True
    if effect.place not in {None, await log_place(tx.connection, effect.guild_id)}:
        return False
    own = sorted(texts(row["user_id"] for row in await tx.connection.fetch(OWN_MEMBERS, effect.guild_id)))
    channel_ids = await clear(tx, effect.guild_id)
    await _tell(tx, effect.guild_id, own, None, effect.now_ms)
    await tell_dropped(tx, effect.guild_id, channel_ids)
    return True


async def tell_dropped(tx: Transaction, guild_id: str, channel_ids: Sequence[str]) -> None:
    """Record for the replicas that the mirror of a guild is deleted. Must be the last step of the transaction."""
    await tx.log(ControlKind.GUILD_DELETED, guild_id=guild_id, body=channel_ids_body(channel_ids))


async def clear(tx: Transaction, guild_id: str, *, delete: DeleteLogs = end_logs) -> list[str]:
    """Delete a mirrored guild, whose row the caller has locked, with its contents. Return the IDs of its channels.

    `delete` is `delete_replaced_logs` if the logs are stored again at once.
    """
    rows = await tx.connection.fetch(
        "SELECT channel_id FROM channels WHERE guild_id = $1 ORDER BY channel_id", guild_id
    )
    channel_ids = [str(row["channel_id"]) for row in rows]
    log_ids = [guild_id, *channel_ids]
    await tx.connection.execute(HOLD_LOGS, log_ids)
    await tx.connection.execute("DELETE FROM guilds WHERE guild_id = $1", guild_id)
    await delete(tx, log_ids)
    return channel_ids


def _hash(text: str | None) -> bytes | None:
    return decode_unpadded(text) if text is not None else None

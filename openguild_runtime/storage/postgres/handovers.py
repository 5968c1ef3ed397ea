"""Owners of guilds, and handovers to other servers, in PostgreSQL (PROTOCOL 16.10). For takeovers see takeovers.py."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.handovers import (
    BeginMove,
    EndMove,
    FindOwnership,
    FindSilentOwners,
    FindSuccession,
    FollowHandover,
    HandOver,
    HistoryLine,
    ListHandovers,
    ListMoves,
    LogHistory,
    Move,
    NoteMove,
    ReadLogHistory,
    ReadTransferred,
    SetSuccessor,
    SilentOwner,
    TransferredGuild,
)
from openguild_proto.effects.performs import performs
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.mirror_records import Handover, Ownership, TransferredInvite, TransferredLog
from openguild_proto.policy.members import OWNER
from openguild_proto.policy.moves import BEHIND, LOST, MOVING, NO_GUILD, NO_MEMBER, NOT_MOVING
from openguild_proto.policy.permissions import Permission
from openguild_proto.schemas.log_entries import successor_set
from openguild_runtime.storage.postgres.authority import require_in_guild
from openguild_runtime.storage.postgres.logs import OF_GUILD
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, moment, rows_changed, to_millis, to_millis_or_none

OWN_MEMBERS = """
EXISTS (SELECT FROM guild_memberships AS m JOIN users AS u USING (user_id) WHERE m.guild_id = g.guild_id AND u.origin IS NULL)
"""
TENURE = f"SELECT origin, term, serial, {OWN_MEMBERS} AS has_members FROM guilds AS g WHERE guild_id = $1"
SILENT_OWNERS = """
SELECT g.origin AS server, count(*) AS guilds FROM guilds AS g LEFT JOIN federation_peers AS p ON p.server = g.origin
WHERE g.origin IS NOT NULL AND (p.contacted_at IS NULL OR p.contacted_at < $1)
GROUP BY g.origin ORDER BY guilds DESC, g.origin COLLATE "C" LIMIT $2
"""
# Conflicts with the FOR KEY SHARE locks of transactions that add a member or an invite.
HOLD_GUILD = "SELECT origin, term FROM guilds WHERE guild_id = $1 FOR UPDATE"
HOLD_MIRRORS = "SELECT FROM federation_guilds WHERE guild_id = $1 ORDER BY peer FOR UPDATE"
LOGS = f"""
SELECT log_id, epoch, head_sequence, base_sequence FROM logs WHERE log_id = {OF_GUILD} ORDER BY log_id <> $1, log_id
"""
KEEP = """
INSERT INTO federation_handovers (guild_id, term, statement) VALUES ($1, $2, $3)
ON CONFLICT (guild_id, term) DO UPDATE SET statement = EXCLUDED.statement
"""
# Rows of ended mirrors stay, because those servers still have to purge them, but without a last event.
END_MIRRORING = (
    "DELETE FROM federation_guilds WHERE guild_id = $1 AND ended_at IS NULL",
    "UPDATE federation_guilds SET last_sequence = NULL WHERE guild_id = $1",
    f"DELETE FROM federation_cursors WHERE log_id = {OF_GUILD}",
    """
    INSERT INTO federation_mirrors (log_id, guild_id)
    SELECT $1::uuid, $1::uuid UNION ALL SELECT channel_id, guild_id FROM channels WHERE guild_id = $1
    """,
    f"UPDATE logs SET base_sequence = coalesce(base_sequence, 0) WHERE log_id = {OF_GUILD}",
)
SET_ORIGIN = (
    "UPDATE guilds SET origin = $2 WHERE guild_id = $1",
    "UPDATE channels SET origin = $2 WHERE guild_id = $1",
)
IS_MIRRORED = "SELECT EXISTS (SELECT FROM federation_guilds WHERE guild_id = $1 AND peer = $2 AND ended_at IS NULL)"
HEAD = "SELECT head_sequence FROM logs WHERE log_id = $1"
LACKS_HISTORY = f"SELECT EXISTS (SELECT FROM ({LOGS}) AS l WHERE base_sequence > 0)"
HISTORY = """
SELECT v.guild_id, l.epoch, l.head_sequence, e.sequence, e.wire, e.created_at, e.nonce, e.fingerprint
FROM logs AS l LEFT JOIN channels AS c ON c.channel_id = l.log_id
JOIN federation_moves AS v ON v.guild_id = coalesce(c.guild_id, l.log_id) AND v.server = $1
LEFT JOIN LATERAL (
    SELECT sequence, wire, created_at, nonce, fingerprint FROM log_events
    WHERE log_id = $2 AND sequence > $3 ORDER BY sequence LIMIT $4
) AS e ON true
WHERE l.log_id = $2 ORDER BY e.sequence
"""


@performs(FindOwnership, Mode.QUERY)
async def find_ownership(connection: Connection, effect: FindOwnership) -> Ownership | None:
    row = await connection.fetchrow(TENURE, effect.guild_id)
    if row is None:
        return None
    return Ownership(effect.guild_id, row["origin"], row["term"], row["serial"], row["has_members"])


@performs(FindSilentOwners, Mode.QUERY)
async def find_silent_owners(connection: Connection, effect: FindSilentOwners) -> tuple[SilentOwner, ...]:
    rows = await connection.fetch(SILENT_OWNERS, moment(effect.before_ms), effect.limit)
    return tuple(SilentOwner(row["server"], row["guilds"]) for row in rows)


@performs(ListHandovers, Mode.QUERY)
async def list_handovers(connection: Connection, effect: ListHandovers) -> tuple[Handover, ...]:
    rows = await connection.fetch(
        "SELECT statement FROM federation_handovers WHERE guild_id = $1 ORDER BY term", effect.guild_id
    )
    return tuple(_statement(row["statement"]) for row in rows)


def _statement(stored: bytes) -> Handover:
    return msgspec.json.decode(stored, type=Handover)


@performs(FollowHandover, Mode.TRANSACTION)
async def follow_handover(tx: Transaction, effect: FollowHandover) -> bool:
    handover, connection = effect.handover, tx.connection
    row = await connection.fetchrow(HOLD_GUILD, handover.guild_id)
    former = None if handover.owner == tx.server_name else handover.owner
    if row is None or row["origin"] != former or row["term"] + 1 != handover.term or handover.to == tx.server_name:
        return False
    if former is None:
        await become_mirror(tx, handover)
        await connection.execute("DELETE FROM federation_moves WHERE guild_id = $1", handover.guild_id)
    else:
        for statement in SET_ORIGIN:
            await connection.execute(statement, handover.guild_id, handover.to)
        await connection.execute(
            "UPDATE federation_partings SET origin = $2 WHERE guild_id = $1 AND origin = $3",
            handover.guild_id,
            handover.to,
            handover.owner,
        )
    await keep_handover(tx, handover)
    return True


async def become_mirror(tx: Transaction, handover: Handover) -> None:
    """Make a guild of this server a mirror. Other servers get no more of its events. The caller has locked the guild."""
    await tx.connection.execute(HOLD_MIRRORS, handover.guild_id)
    rows = await tx.connection.fetch(LOGS, handover.guild_id)
    await tx.hold_logs([str(row["log_id"]) for row in rows])
    for statement in END_MIRRORING:
        await tx.connection.execute(statement, handover.guild_id)
    for statement in SET_ORIGIN:
        await tx.connection.execute(statement, handover.guild_id, handover.to)


async def keep_handover(tx: Transaction, handover: Handover) -> None:
    """Store a statement that has been applied, and the term of the new owner."""
    await tx.connection.execute(KEEP, handover.guild_id, handover.term, msgspec.json.encode(handover))
    await tx.connection.execute("UPDATE guilds SET term = $2 WHERE guild_id = $1", handover.guild_id, handover.term)
    await tx.connection.execute("DELETE FROM federation_successions WHERE guild_id = $1", handover.guild_id)


# --- a successor -----------------------------------------------------------------------------------


@performs(SetSuccessor, Mode.TRANSACTION)
async def set_successor(tx: Transaction, effect: SetSuccessor) -> bool:
    access, _ = await require_in_guild(tx, effect.author, effect.guild_id, Permission.READ)
    if access.role != OWNER:
        raise Refusal(ErrorCode.FORBIDDEN)
    raised = await tx.connection.execute(
        "UPDATE guilds SET serial = $2 WHERE guild_id = $1 AND serial < $2", effect.guild_id, effect.serial
    )
    if not rows_changed(raised):
        return False
    await tx.connection.execute("DELETE FROM federation_successions WHERE guild_id = $1", effect.guild_id)
    if effect.handover is not None:
        await tx.connection.execute(
            "INSERT INTO federation_successions (guild_id, statement) VALUES ($1, $2)",
            effect.guild_id,
            msgspec.json.encode(effect.handover),
        )
    server = effect.handover.to if effect.handover is not None else None
    entries = successor_set(effect.guild_id, server, effect.serial)
    await tx.append(entries, sender=effect.author.user_id, now_ms=effect.now_ms)
    return True


@performs(FindSuccession, Mode.QUERY)
async def find_succession(connection: Connection, effect: FindSuccession) -> Handover | None:
    stored = await connection.fetchval(
        "SELECT statement FROM federation_successions WHERE guild_id = $1", effect.guild_id
    )
    return _statement(stored) if stored is not None else None


# --- moving ----------------------------------------------------------------------------------------


@performs(BeginMove, Mode.TRANSACTION)
async def begin_move(tx: Transaction, effect: BeginMove) -> str | None:
    guild_id, connection = effect.guild_id, tx.connection
    row = await connection.fetchrow(HOLD_GUILD, guild_id)
    to = await connection.fetchval("SELECT server FROM federation_moves WHERE guild_id = $1", guild_id)
    if to is not None:
        return None if to == effect.to else MOVING
    if row is None or row["origin"] is not None:
        return NO_GUILD
    if not await connection.fetchval(IS_MIRRORED, guild_id, effect.to):
        return NO_MEMBER
    if await connection.fetchval(LACKS_HISTORY, guild_id):
        return LOST
    await connection.execute(
        "INSERT INTO federation_moves (guild_id, server, began_at) VALUES ($1, $2, $3)",
        guild_id,
        effect.to,
        moment(effect.now_ms),
    )
    return None


@performs(EndMove, Mode.CHANGE)
async def end_move(connection: Connection, effect: EndMove) -> bool:
    ended = await connection.execute(
        "DELETE FROM federation_moves WHERE guild_id = $1 AND (term IS NULL OR $2)", effect.guild_id, effect.done
    )
    return rows_changed(ended) == 1


@performs(NoteMove, Mode.CHANGE)
async def note_move(connection: Connection, effect: NoteMove) -> None:
    await connection.execute("UPDATE federation_moves SET note = $2 WHERE guild_id = $1", effect.guild_id, effect.note)


@performs(ListMoves, Mode.QUERY)
async def list_moves(connection: Connection, effect: ListMoves) -> tuple[Move, ...]:
    rows = await connection.fetch(
        """
        SELECT m.guild_id, m.server, m.began_at, m.note, h.statement FROM federation_moves AS m
        LEFT JOIN federation_handovers AS h USING (guild_id, term) ORDER BY guild_id
        """
    )
    return tuple(
        Move(
            str(row["guild_id"]),
            row["server"],
            to_millis(row["began_at"]),
            _statement(row["statement"]) if row["statement"] is not None else None,
            row["note"],
        )
        for row in rows
    )


@performs(HandOver, Mode.TRANSACTION)
async def hand_over(tx: Transaction, effect: HandOver) -> str | None:
    handover, connection = effect.handover, tx.connection
    guild_id = handover.guild_id
    row = await connection.fetchrow(HOLD_GUILD, guild_id)
    if row is None or row["origin"] is not None or row["term"] + 1 != handover.term:
        return NO_GUILD
    move = await connection.fetchrow(
        "SELECT server, term FROM federation_moves WHERE guild_id = $1 FOR UPDATE", guild_id
    )
    if move is None or move["server"] != handover.to or move["term"] is not None:
        return NOT_MOVING
    await connection.execute(HOLD_MIRRORS, guild_id)
    if not await connection.fetchval(IS_MIRRORED, guild_id, handover.to):
        return NO_MEMBER
    if await connection.fetchval(HEAD, guild_id) != effect.sequence:  # the locked guild prevents appends
        return BEHIND
    await become_mirror(tx, handover)
    await keep_handover(tx, handover)
    await connection.execute("UPDATE federation_moves SET term = $2 WHERE guild_id = $1", guild_id, handover.term)
    return None


@performs(ReadTransferred, Mode.SNAPSHOT)
async def read_transferred(tx: Transaction, effect: ReadTransferred) -> TransferredGuild:
    logs = await tx.connection.fetch(LOGS, effect.guild_id)
    invites = await tx.connection.fetch(
        """
        SELECT code, created_by, created_at, uses, max_uses, expires_at FROM invites
        WHERE guild_id = $1 ORDER BY code COLLATE "C"
        """,
        effect.guild_id,
    )
    return TransferredGuild(
        tuple(TransferredLog(str(row["log_id"]), row["epoch"], row["head_sequence"]) for row in logs),
        tuple(
            TransferredInvite(
                row["code"],
                str(row["created_by"]),
                to_millis(row["created_at"]),
                row["uses"],
                row["max_uses"],
                to_millis_or_none(row["expires_at"]),
            )
            for row in invites
        ),
    )


@performs(ReadLogHistory, Mode.QUERY)
async def read_history(connection: Connection, effect: ReadLogHistory) -> LogHistory | None:
    rows = await connection.fetch(HISTORY, effect.peer, effect.log_id, effect.after, effect.limit)
    if not rows:
        return None
    lines = tuple(
        HistoryLine(row["sequence"], row["wire"], to_millis(row["created_at"]), row["nonce"], row["fingerprint"])
        for row in rows
        if row["sequence"] is not None
    )
    return LogHistory(str(rows[0]["guild_id"]), rows[0]["epoch"], rows[0]["head_sequence"], lines)

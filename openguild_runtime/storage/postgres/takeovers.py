"""Takeovers of guilds of other servers, with their history, in PostgreSQL (PROTOCOL 16.10)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from openguild_proto.effects.channels import AppendEvent
from openguild_proto.effects.handovers import AbsorbHistory, FindCopies, LogCopy, StageHistory, TakeGuild
from openguild_proto.effects.mirrors import FORKED, NOT_OURS
from openguild_proto.effects.performs import performs
from openguild_proto.limits import LOCK_TIMEOUT_MS
from openguild_proto.mirror_records import Handover, TransferredLog
from openguild_proto.records import NOBODY, ControlKind
from openguild_proto.schemas.event_effects import as_kept, effect_of_event
from openguild_proto.schemas.events import parse_content, parse_event
from openguild_proto.schemas.log_entries import guild_moved
from openguild_runtime.storage.postgres.changes import judge_and_write
from openguild_runtime.storage.postgres.handovers import HOLD_GUILD, LOGS, keep_handover
from openguild_runtime.storage.postgres.logs import OF_GUILD
from openguild_runtime.storage.postgres.mirror_events import ADD_EVENTS
from openguild_runtime.storage.postgres.mirror_posts import forgeable
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, Row, moment, moment_or_none, texts, to_millis

REBUILT_AT_ONCE = 200  # events, as many as in a delivery
COPIES = """
SELECT l.log_id, l.epoch, l.head_sequence AS head, l.base_sequence AS base, greatest(m.copied, (
    SELECT max(sequence) FROM federation_history AS h WHERE h.log_id = l.log_id
)) AS copied
FROM federation_mirrors AS m JOIN guilds AS g USING (guild_id) JOIN logs AS l USING (log_id)
WHERE g.origin = $1 AND m.guild_id = $2 ORDER BY l.log_id <> $2, l.log_id
"""
# Locks a mirrored log.
HOLD_LOG = """
SELECT l.kind, l.epoch, l.head_sequence AS head, l.base_sequence AS base, m.copied
FROM federation_mirrors AS m JOIN guilds AS g USING (guild_id) JOIN logs AS l USING (log_id)
WHERE m.log_id = $1 AND g.origin = $2 FOR UPDATE OF l, m
"""
STAGED = "SELECT max(sequence) FROM federation_history WHERE log_id = $1"
OWN_USERS = "SELECT user_id FROM users WHERE user_id = ANY ($1::uuid[]) AND origin IS NULL"
DIFFERS = """
SELECT EXISTS (
    SELECT FROM unnest($2::bigint[], $3::text[]) AS given (sequence, event_id)
    JOIN log_events AS e ON e.log_id = $1 AND e.sequence = given.sequence AND e.event_id <> given.event_id
)
"""
STAGE = """
INSERT INTO federation_history (log_id, sequence, event_id, wire, created_at, nonce, fingerprint)
SELECT $1, sequence, event_id, wire, created_at, nonce, fingerprint
FROM unnest($2::bigint[], $3::text[], $4::bytea[], $5::timestamptz[], $6::text[], $7::bytea[])
    AS row (sequence, event_id, wire, created_at, nonce, fingerprint)
"""
# Delivered events are staged too, after the history.
STAGE_LATER = """
INSERT INTO federation_history (log_id, sequence, event_id, wire, created_at, fingerprint)
SELECT log_id, sequence, event_id, wire, created_at, '' FROM log_events WHERE log_id = $1 AND sequence > $2
"""
CLEAR = (
    "SELECT search_hold_v1(ARRAY[$1::uuid])",
    *(
        f"DELETE FROM {table} WHERE log_id = $1"
        for table in ("search_documents", "search_progress", "reactions", "message_states", "log_events")
    ),
    "UPDATE logs SET head_sequence = 0, message_count = 0 WHERE log_id = $1",
)
READ = """
SELECT sequence, wire, created_at FROM federation_history WHERE log_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3
"""
NOTE_NONCES = """
UPDATE log_events AS e SET nonce = h.nonce, fingerprint = h.fingerprint FROM federation_history AS h
WHERE e.log_id = $1 AND h.log_id = $1 AND e.sequence = h.sequence AND h.nonce IS NOT NULL
"""
UNSTAGE = "DELETE FROM federation_history WHERE log_id = $1"
ABSORBED = "UPDATE federation_mirrors SET copied = $2 WHERE log_id = $1"
IS_WHOLE = "UPDATE logs SET base_sequence = 0 WHERE log_id = $1"
# Cursors get the former epoch, so that each mirror is informed of the new one.
DELIVER = f"""
WITH peers AS (
    SELECT DISTINCT u.origin AS peer FROM guild_memberships AS m JOIN users AS u USING (user_id)
    WHERE m.guild_id = $1 AND u.origin IS NOT NULL
), mirroring AS (
    INSERT INTO federation_guilds (peer, guild_id, since) SELECT peer, $1, $2 FROM peers ORDER BY peer
    ON CONFLICT (peer, guild_id) DO UPDATE SET since = EXCLUDED.since, ended_at = NULL, purged_at = NULL, last_sequence = NULL
)
INSERT INTO federation_cursors (peer, log_id, epoch, sequence)
SELECT peer, log_id, epoch, 0 FROM peers, logs WHERE log_id = {OF_GUILD} ORDER BY peer, log_id
ON CONFLICT (peer, log_id) DO UPDATE SET epoch = EXCLUDED.epoch, sequence = EXCLUDED.sequence
"""
OWN = (
    "UPDATE guilds SET origin = NULL WHERE guild_id = $1",
    "UPDATE channels SET origin = NULL WHERE guild_id = $1",
    "DELETE FROM federation_mirrors WHERE guild_id = $1",
    f"DELETE FROM federation_history WHERE log_id = {OF_GUILD}",
)
RENEW = f"UPDATE logs SET epoch = $2, base_sequence = nullif(base_sequence, 0) WHERE log_id = {OF_GUILD}"
KEEP_FORMER = """
INSERT INTO federation_handovers (guild_id, term, statement) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
"""
NO_INVITES = "DELETE FROM invites WHERE guild_id = $1"
ADD_INVITES = """
INSERT INTO invites (code, guild_id, created_by, created_at, uses, max_uses, expires_at)
SELECT code, $1, u.user_id, given.created_at, uses, max_uses, expires_at
FROM unnest($2::text[], $3::uuid[], $4::timestamptz[], $5::integer[], $6::integer[], $7::timestamptz[])
    AS given (code, created_by, created_at, uses, max_uses, expires_at)
JOIN users AS u ON u.user_id = given.created_by ON CONFLICT DO NOTHING
"""


@performs(FindCopies, Mode.QUERY)
async def find_copies(connection: Connection, effect: FindCopies) -> tuple[LogCopy, ...] | None:
    rows = await connection.fetch(COPIES, effect.owner, effect.guild_id)
    return tuple(_copy(row) for row in rows) or None


def _copy(row: Row) -> LogCopy:
    return LogCopy(str(row["log_id"]), row["epoch"], row["head"], row["base"] or 0, row["copied"])


@performs(StageHistory, Mode.TRANSACTION)
async def stage_history(tx: Transaction, effect: StageHistory) -> str | None:
    connection, log_id = tx.connection, effect.log_id
    log = await connection.fetchrow(HOLD_LOG, log_id, effect.owner)
    if log is None:
        return None
    said = [line.event for line in effect.events]
    kept = as_kept(said, {*texts(row["user_id"] for row in await connection.fetch(OWN_USERS, forgeable(said)))})
    if kept is None:
        return NOT_OURS
    columns = list(zip(*((line.event.sequence, line.event.event_id) for line in effect.events), strict=True))
    if columns and await connection.fetchval(DIFFERS, log_id, *columns):
        return FORKED
    copied = max(log["copied"], await connection.fetchval(STAGED, log_id) or 0)
    lines = (replace(line, event=event) for line, event in zip(effect.events, kept, strict=True))
    fresh = [line for line in lines if line.event.sequence > copied]
    if not fresh or fresh[0].event.sequence != copied + 1:
        return None
    await connection.execute(
        STAGE,
        log_id,
        [line.event.sequence for line in fresh],
        [line.event.event_id for line in fresh],
        [line.event.wire for line in fresh],
        [moment(line.event.at_ms) for line in fresh],
        [line.nonce for line in fresh],
        [line.fingerprint for line in fresh],
    )
    return None


@performs(AbsorbHistory, Mode.LONG)
async def absorb_history(tx: Transaction, effect: AbsorbHistory) -> None:
    connection, log_id = tx.connection, effect.log_id
    log = await connection.fetchrow(HOLD_LOG, log_id, effect.owner)
    if log is None:
        return
    copied, base = max(log["copied"], await connection.fetchval(STAGED, log_id) or 0), log["base"] or 0
    if copied < base:
        return
    if base and log["kind"] == "channel":
        await connection.execute(STAGE_LATER, log_id, copied)
        await _rebuild(tx, log_id)
    elif base:
        await _add_below(connection, log_id, base)
    await connection.execute(NOTE_NONCES, log_id)
    await connection.execute(UNSTAGE, log_id)
    await connection.execute(ABSORBED, log_id, copied)
    await connection.execute(IS_WHOLE, log_id)


async def _add_below(connection: Connection, log_id: str, base: int) -> None:
    """Store the history of a guild's log. It is stored as bytes, because it may contain JSON that PostgreSQL refuses."""
    after = 0
    while rows := await connection.fetch(READ, log_id, after, min(REBUILT_AT_ONCE, base - after)):
        events = [parse_event(row["wire"]) for row in rows]
        await connection.execute(
            ADD_EVENTS,
            log_id,
            [row["sequence"] for row in rows],
            [event.event_id for event in events],
            [event.event_type for event in events],
            [row["wire"] for row in rows],
            [event.sender for event in events],
            [row["created_at"] for row in rows],
        )
        after = rows[-1]["sequence"]


async def _rebuild(tx: Transaction, log_id: str) -> None:
    """Store a channel's log again from its first event. Mentions are kept as they are, without new events."""
    for statement in CLEAR:
        await tx.connection.execute(statement, log_id)
    after = 0
    while rows := await tx.connection.fetch(READ, log_id, after, REBUILT_AT_ONCE):
        await judge_and_write(tx.connection, [_again(log_id, row) for row in rows], LOCK_TIMEOUT_MS)
        after = rows[-1]["sequence"]


def _again(log_id: str, row: Row) -> AppendEvent:
    event = parse_event(row["wire"])
    said = effect_of_event(event, parse_content(event))
    return AppendEvent(
        author=None,
        channel_id=log_id,
        sender_id=event.sender,
        event_id=event.event_id,
        event_type=event.event_type,
        wire=row["wire"],
        nonce=None,
        fingerprint=b"",
        now_ms=to_millis(row["created_at"]),
        change=said.change,
        mentions=NOBODY,
        redacted_by=said.redacted_by,
    )


@performs(TakeGuild, Mode.TRANSACTION)
async def take_guild(tx: Transaction, effect: TakeGuild) -> bool:
    handover, connection = effect.handover, tx.connection
    guild_id = handover.guild_id
    row = await connection.fetchrow(HOLD_GUILD, guild_id)
    if row is None:
        return False
    if row["origin"] is None and row["term"] == handover.term:
        return True  # by this very handover, because there is one for each term
    is_owned = row["origin"] is None and row["term"] < handover.term
    if not is_owned and (row["origin"] != handover.owner or row["term"] + 1 != handover.term):
        return False
    await tx.hold_logs([str(log["log_id"]) for log in await connection.fetch(LOGS, guild_id)])
    copies = [_copy(found) for found in await connection.fetch(COPIES, handover.owner, guild_id)]
    if effect.logs is not None and not _is_whole(copies, effect.logs):
        return False
    await connection.execute(DELIVER, guild_id, moment(effect.now_ms))
    for statement in OWN:
        await connection.execute(statement, guild_id)
    await connection.execute(RENEW, guild_id, effect.epoch)
    await connection.execute(
        "DELETE FROM federation_partings WHERE guild_id = $1 AND origin = $2", guild_id, handover.owner
    )
    await connection.executemany(
        KEEP_FORMER, [(guild_id, each.term, msgspec.json.encode(each)) for each in effect.former]
    )
    await keep_handover(tx, handover)
    if not is_owned:
        await _take_invites(tx, effect)
    await _tell(tx, handover, effect.now_ms)
    return True


def _is_whole(copies: Sequence[LogCopy], logs: Sequence[TransferredLog]) -> bool:
    here = {(copy.log_id, copy.epoch, copy.head) for copy in copies if copy.base == 0 and copy.copied == copy.head}
    return here == {(log.log_id, log.epoch, log.sequence) for log in logs} and len(here) == len(copies)


async def _take_invites(tx: Transaction, effect: TakeGuild) -> None:
    """Replace the invites that this server has kept, from when it owned the guild before, by those of the former owner."""
    invites = effect.invites
    await tx.connection.execute(NO_INVITES, effect.handover.guild_id)
    await tx.connection.execute(
        ADD_INVITES,
        effect.handover.guild_id,
        [invite.code for invite in invites],
        [invite.created_by for invite in invites],
        [moment(invite.created_at_ms) for invite in invites],
        [invite.uses for invite in invites],
        [invite.max_uses for invite in invites],
        [moment_or_none(invite.expires_at_ms) for invite in invites],
    )


async def _tell(tx: Transaction, handover: Handover, now_ms: int) -> None:
    await tx.append(guild_moved(handover), sender=None, now_ms=now_ms)
    await tx.log(ControlKind.LOGS_RENEWED, guild_id=handover.guild_id)

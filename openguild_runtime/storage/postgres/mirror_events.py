"""Events of other servers' logs in PostgreSQL: appended at their sequence numbers, and applied (PROTOCOL 16.8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from openguild_proto.canonical.receipts import chain_over
from openguild_proto.effects.channels import Appended, AppendEvent
from openguild_proto.effects.mirrors import ANOTHER, FORKED, NOT_OURS, REPEATED, MirrorEvents, MirrorOutcome
from openguild_proto.limits import LOCK_TIMEOUT_MS
from openguild_proto.mirror_records import MirroredEvent
from openguild_proto.records import LogPosition, Redact, StoredEvent
from openguild_proto.schemas.decode import parse_uuid
from openguild_proto.schemas.event_effects import as_kept
from openguild_proto.schemas.events import parse_content, parse_event
from openguild_runtime.storage.postgres.changes import judge_and_write
from openguild_runtime.storage.postgres.mentions import mentions_somebody, note_mentions
from openguild_runtime.storage.postgres.mirror_guild import GuildMirror
from openguild_runtime.storage.postgres.mirrors import clear, tell_dropped
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import moment

# Locks senders of this server before the log, so that none of their accounts is deleted before the read positions are stored.
HOLD_SENDERS = """
SELECT user_id::text FROM users WHERE user_id = ANY ($1::uuid[]) AND origin IS NULL ORDER BY users.user_id FOR KEY SHARE
"""
# Also reads whether one of the events (IDs $4, sequences $5) is at another place of the log, or another event at its place. Both
# rows are locked, because a statement that has waited for a lock sees the newest version of locked rows only.
HOLD = """
SELECT l.epoch, l.head_sequence, m.hash,
    EXISTS (
        SELECT FROM unnest($4::text[], $5::bigint[]) AS given (event_id, sequence)
        JOIN log_events AS e ON e.log_id = $1 AND e.event_id = given.event_id AND e.sequence <> given.sequence
    ) AS is_repeated,
    EXISTS (
        SELECT FROM unnest($4::text[], $5::bigint[]) AS given (event_id, sequence)
        JOIN log_events AS e ON e.log_id = $1 AND e.sequence = given.sequence AND e.event_id <> given.event_id
        WHERE given.sequence <= l.head_sequence
    ) AS is_another
FROM federation_mirrors AS m JOIN guilds AS g USING (guild_id) JOIN logs AS l USING (log_id)
WHERE m.log_id = $1 AND m.guild_id = $2 AND g.origin = $3 FOR NO KEY UPDATE OF l, m
"""
# Locks the guild before its log, as every change of it does, so that deletions wait. Users are not locked: the owner may name any
# user of this server, and no action here depends on their rights in its guild.
HOLD_GUILD = "SELECT FROM guilds WHERE guild_id = $1 AND origin = $2 FOR NO KEY UPDATE"
CHAIN = "UPDATE federation_mirrors SET hash = $2, receipt = $3 WHERE log_id = $1"
RAISE_HEAD = "UPDATE logs SET head_sequence = $2 WHERE log_id = $1"
ADD_EVENTS = """
INSERT INTO log_events (log_id, sequence, event_id, event_type, wire, sender_id, created_at, fingerprint, message_number)
SELECT $1, sequence, event_id, event_type, wire, sender_id, created_at, '', 0
FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bytea[], $6::text[], $7::timestamptz[])
    AS e (sequence, event_id, event_type, wire, sender_id, created_at)
"""
# Counts messages of users of this server, so that their own messages are not unread.
COUNT_OWN = """
INSERT INTO channel_read_state AS s (channel_id, user_id, own_since, updated_at)
SELECT $1, given.user_id, given.count, $4 FROM unnest($2::uuid[], $3::bigint[]) AS given (user_id, count)
ORDER BY given.user_id
ON CONFLICT (channel_id, user_id) DO UPDATE SET own_since = s.own_since + EXCLUDED.own_since
"""
# History that is being copied is copied again from the redacted message on.
UNSTAGE = """
DELETE FROM federation_history WHERE log_id = $1 AND sequence >= (
    SELECT sequence FROM federation_history WHERE log_id = $1 AND event_id = $2
)
"""


async def mirror_events(tx: Transaction, effect: MirrorEvents) -> MirrorOutcome:
    """Store events that follow the head of a mirrored log, and apply those of a guild's log to its mirror."""
    of_guild = effect.log_id == effect.guild_id
    if of_guild:
        await tx.connection.execute(HOLD_GUILD, effect.guild_id, effect.origin)
    own = set() if of_guild else await _hold_own_senders(tx, effect.events)
    row = await tx.connection.fetchrow(
        HOLD,
        effect.log_id,
        effect.guild_id,
        effect.origin,
        [event.event_id for event in effect.events],
        [event.sequence for event in effect.events],
    )
    if row is None:
        return MirrorOutcome("unknown")
    epoch, head = row["epoch"], row["head_sequence"]
    place = LogPosition(effect.log_id, epoch, head)
    if epoch != effect.epoch:
        return MirrorOutcome("epoch", place)
    if row["is_another"]:
        return MirrorOutcome("refused", place, reason=ANOTHER)
    fresh = [event for event in effect.events if event.sequence > head]
    if not fresh or fresh[0].sequence != head + 1:
        return MirrorOutcome("ok", place)
    if row["is_repeated"]:
        return MirrorOutcome("refused", place, reason=REPEATED)
    kept = as_kept(fresh, own)
    if kept is None:
        return MirrorOutcome("refused", place, reason=NOT_OURS)
    fresh = kept
    if row["hash"] is not None:
        links = ((event.sequence, event.event_id) for event in fresh)
        chain = chain_over(row["hash"], effect.log_id, epoch, links)
        if effect.chain is not None and chain != effect.chain:
            return MirrorOutcome("refused", place, reason=FORKED)
        await tx.connection.execute(CHAIN, effect.log_id, chain, effect.receipt)
    reached = LogPosition(effect.log_id, epoch, fresh[-1].sequence)
    if of_guild:
        return await _guild_events(tx, effect, fresh, reached)
    return MirrorOutcome("ok", reached, await _channel_events(tx, effect.log_id, fresh, own))


async def _hold_own_senders(tx: Transaction, events: Sequence[MirroredEvent]) -> set[str]:
    senders = list({event.sender_id for event in events if parse_uuid(event.sender_id) is not None})
    return {row["user_id"] for row in await tx.connection.fetch(HOLD_SENDERS, senders)}


async def _guild_events(
    tx: Transaction, effect: MirrorEvents, fresh: Sequence[MirroredEvent], reached: LogPosition
) -> MirrorOutcome:
    await tx.connection.execute(RAISE_HEAD, effect.log_id, reached.sequence)
    await tx.connection.execute(
        ADD_EVENTS,
        effect.log_id,
        [event.sequence for event in fresh],
        [event.event_id for event in fresh],
        [event.event_type for event in fresh],
        [event.wire for event in fresh],
        [event.sender_id for event in fresh],
        [moment(event.at_ms) for event in fresh],
    )
    mirror = GuildMirror(tx, effect.origin, effect.guild_id)
    told = [(event, parse_content(parse_event(event.wire))) for event in fresh]
    await mirror.know_members(told)
    for event, content in told:
        tx.events.append(StoredEvent(effect.log_id, event.sequence, event.event_id, event.wire, event.at_ms))
        await mirror.apply(event, content)
    if mirror.lost_members and not await mirror.has_own_members():
        channel_ids = await clear(tx, effect.guild_id)
        await mirror.tell()
        await tell_dropped(tx, effect.guild_id, channel_ids)
        return MirrorOutcome("ok", reached, ended=True)
    await mirror.tell()
    return MirrorOutcome("ok", reached)


async def _channel_events(
    tx: Transaction, log_id: str, fresh: Sequence[MirroredEvent], own_users: set[str]
) -> tuple[StoredEvent, ...]:
    effects = [
        AppendEvent(
            author=None,
            channel_id=log_id,
            sender_id=event.sender_id,
            event_id=event.event_id,
            event_type=event.event_type,
            wire=event.wire,
            nonce=None,
            fingerprint=b"",
            now_ms=event.at_ms,
            change=event.change,
            mentions=event.mentions,
            redacted_by=event.redacted_by,
        )
        for event in fresh
    ]
    outcomes = await judge_and_write(tx.connection, effects, LOCK_TIMEOUT_MS)
    own = Counter(event.sender_id for event in fresh if event.event_type == "message" and event.sender_id in own_users)
    if own:
        await tx.connection.execute(
            COUNT_OWN, log_id, list(own), list(own.values()), moment(max(event.at_ms for event in fresh))
        )
    for event in fresh:
        if isinstance(event.change, Redact):
            await tx.connection.execute(UNSTAGE, log_id, event.change.target)
    if mentions_somebody(effects):
        await note_mentions(tx, effects, outcomes)
    return tuple(outcome.event for outcome in outcomes if isinstance(outcome, Appended))

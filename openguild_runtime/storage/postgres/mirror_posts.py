"""Stores plain posts of a mirrored channel in one statement. For other deliveries see mirror_events.py."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from openguild_proto.canonical.receipts import chain_over
from openguild_proto.effects.mirrors import MirrorEvents, MirrorOutcome
from openguild_proto.limits import LOCK_TIMEOUT_MS
from openguild_proto.mirror_records import MirroredEvent
from openguild_proto.records import LogPosition, StoredEvent
from openguild_proto.schemas.decode import parse_uuid
from openguild_runtime.storage.postgres.values import Connection, moment, rows_changed

MAX_TIPS = 1_000  # mirrored logs whose heads this process remembers

READ_TIP = """
SELECT l.epoch, l.head_sequence, m.hash FROM federation_mirrors AS m JOIN logs AS l USING (log_id) WHERE m.log_id = $1
"""
# Stores all events, or none if the log is not at the expected place or an event has to be refused. PostgreSQL checks locked rows
# again after a wait, so nothing else that another delivery may change is read before. Committed without waiting for the disk:
# the owner delivers events lost in a crash again. Senders of this server are locked first, so that no account is deleted.
STORE = """
WITH own AS MATERIALIZED (
    SELECT user_id FROM users WHERE user_id = ANY ($13::uuid[]) AND origin IS NULL ORDER BY user_id FOR KEY SHARE
), held AS (
    SELECT l.log_id, l.message_count
    FROM (SELECT count(*) AS count FROM own) AS senders,
        set_config('lock_timeout', $16, true) AS lock_timeout, set_config('synchronous_commit', 'off', true) AS lazily,
        federation_mirrors AS m JOIN guilds AS g USING (guild_id) JOIN logs AS l USING (log_id)
    WHERE m.log_id = $1 AND m.guild_id = $2 AND g.origin = $3 AND l.epoch = $4 AND l.head_sequence = $5
        AND m.hash IS NOT DISTINCT FROM $6 AND lock_timeout IS NOT NULL AND lazily IS NOT NULL
        AND senders.count IS NOT NULL
    FOR NO KEY UPDATE OF l, m
), fit AS MATERIALIZED (
    SELECT log_id, message_count FROM held
    WHERE NOT EXISTS (SELECT FROM log_events AS e WHERE e.log_id = $1 AND e.event_id = ANY ($9::text[]))
        AND NOT EXISTS (SELECT FROM users AS u WHERE u.user_id = ANY ($15::uuid[]) AND u.origin IS NULL)
), chained AS (
    UPDATE federation_mirrors AS m SET hash = $7, receipt = $8 FROM fit WHERE m.log_id = fit.log_id AND $7::bytea IS NOT NULL
), counted AS (
    INSERT INTO channel_read_state AS s (channel_id, user_id, own_since, updated_at)
    SELECT fit.log_id, u.user_id, given.count, ($12::timestamptz[])[cardinality($12::timestamptz[])]
    FROM fit, unnest($13::uuid[], $14::bigint[]) AS given (user_id, count)
    JOIN own AS u ON u.user_id = given.user_id ORDER BY u.user_id
    ON CONFLICT (channel_id, user_id) DO UPDATE SET own_since = s.own_since + EXCLUDED.own_since
), added AS (
    INSERT INTO log_events (log_id, sequence, event_id, event_type, wire, sender_id, created_at, fingerprint, message_number)
    SELECT fit.log_id, $5 + e.place, e.event_id, 'message', e.wire, e.sender_id, e.created_at, '',
        fit.message_count + e.place
    FROM fit, unnest($9::text[], $10::bytea[], $11::text[], $12::timestamptz[])
        WITH ORDINALITY AS e (event_id, wire, sender_id, created_at, place)
)
UPDATE logs AS l SET head_sequence = l.head_sequence + cardinality($9::text[]),
    message_count = l.message_count + cardinality($9::text[])
FROM fit WHERE l.log_id = fit.log_id
"""


class ChainHead(NamedTuple):
    """The head of a mirrored log, with the value of its receipt chain there."""

    epoch: int
    sequence: int
    hash: bytes | None


class MirrorPosts:
    """Stores posts, and remembers the heads of logs, which may be outdated, so that the next posts need no read."""

    def __init__(self) -> None:
        self._tips: OrderedDict[str, ChainHead] = OrderedDict()

    async def store(self, connection: Connection, effect: MirrorEvents) -> MirrorOutcome | None:
        """Store the events if all are plain posts that follow the head of the log and none is refused; otherwise return None."""
        first = effect.events[0].sequence if effect.events else 0
        if not first or effect.log_id == effect.guild_id or not all(map(_is_plain, effect.events)):
            return None
        tip = self._tips.pop(effect.log_id, None)
        if tip is None or (tip.epoch, tip.sequence + 1) != (effect.epoch, first):
            row = await connection.fetchrow(READ_TIP, effect.log_id)
            if row is None or (row["epoch"], row["head_sequence"] + 1) != (effect.epoch, first):
                return None
            tip = ChainHead(row["epoch"], row["head_sequence"], row["hash"])
        chain = _chain(effect, tip)
        if chain is not None and effect.chain is not None and chain != effect.chain:
            return None
        if not await _store(connection, effect, tip, chain):
            return None
        last = effect.events[-1].sequence
        self._tips[effect.log_id] = ChainHead(effect.epoch, last, chain)
        if len(self._tips) > MAX_TIPS:
            self._tips.popitem(last=False)
        stored = tuple(StoredEvent(effect.log_id, e.sequence, e.event_id, e.wire, e.at_ms) for e in effect.events)
        return MirrorOutcome("ok", LogPosition(effect.log_id, effect.epoch, last), stored)


def _is_plain(event: MirroredEvent) -> bool:
    named = event.mentions
    return (
        event.event_type == "message"
        and event.change is None
        and event.redacted_by is None
        and not (named.users or named.roles or named.everyone)
    )


def _chain(effect: MirrorEvents, tip: ChainHead) -> bytes | None:
    if tip.hash is None:
        return None
    return chain_over(tip.hash, effect.log_id, tip.epoch, [(e.sequence, e.event_id) for e in effect.events])


async def _store(connection: Connection, effect: MirrorEvents, tip: ChainHead, chain: bytes | None) -> bool:
    events = effect.events
    counts = Counter(event.sender_id for event in events if parse_uuid(event.sender_id) is not None)
    status = await connection.execute(
        STORE,
        effect.log_id,
        effect.guild_id,
        effect.origin,
        tip.epoch,
        tip.sequence,
        tip.hash,
        chain,
        effect.receipt,
        [event.event_id for event in events],
        [event.wire for event in events],
        [event.sender_id for event in events],
        [moment(event.at_ms) for event in events],
        list(counts),
        list(counts.values()),
        forgeable(events),
        f"{LOCK_TIMEOUT_MS}ms",
    )
    return rows_changed(status) == 1


def forgeable(events: Sequence[MirroredEvent]) -> list[str]:
    """Return the senders of events signed by the guild's owner alone. None of them may be a user of this server."""
    return list({event.sender_id for event in events if event.by_owner and parse_uuid(event.sender_id) is not None})

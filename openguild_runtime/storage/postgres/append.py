"""Stores a batch of appends: one of posts alone with `append_posts_v1`, one with changes of messages as in changes.py."""

from __future__ import annotations

from collections.abc import Sequence

from openguild_proto.effects.channels import AppendEvent, AppendFailure
from openguild_proto.errors import Refusal
from openguild_proto.log.changes import repeat_of
from openguild_proto.log.commits import Outcome
from openguild_proto.policy.permissions import Permission, handed_over, require_role, require_session
from openguild_proto.records import StoredEvent
from openguild_proto.schemas.log_writer import LogWriter
from openguild_runtime.storage.postgres.changes import OVERSEERS, PERMITTED, append_changes, stored_now
from openguild_runtime.storage.postgres.mentions import mentions_somebody, note_mentions
from openguild_runtime.storage.postgres.transaction import Transaction
from openguild_runtime.storage.postgres.values import Connection, Row, moment, to_millis

# Sets `lock_timeout` for this transaction only, so it works behind a pooler. The append refers to the result of
# set_config, so it runs after it. The timeout applies to each lock.
APPEND = """
SELECT place, sequence, stored, event_id, fingerprint, wire, created_at,
    refused, living, guild_role, channel_role, server_roles
FROM set_config('lock_timeout', $13, true) AS lock_timeout, LATERAL append_posts_v1(
    $1, $2, $3, $4, $5, $6, $7, CASE WHEN lock_timeout IS NOT NULL THEN $8::timestamptz[] END, $9, $10, $11, $12
) AS appended
"""

# The authors whose rows other transactions have locked.
LOCKED_AUTHORS = """
WITH free AS MATERIALIZED (SELECT user_id FROM users WHERE user_id = ANY ($1::uuid[]) FOR KEY SHARE SKIP LOCKED)
SELECT user_id FROM users WHERE user_id = ANY ($1::uuid[]) AND user_id NOT IN (SELECT user_id FROM free)
"""


async def append_batch(
    connection: Connection, effects: Sequence[AppendEvent], lock_timeout_ms: int, writer: LogWriter
) -> tuple[list[Outcome], list[StoredEvent]]:
    """Store the batch in one transaction. Return one outcome for each effect, in order, and events about mentions.

    `writer` builds these events, which are appended to the logs of the mentioned users.

    Raises asyncpg's LockNotAvailableError after `lock_timeout_ms` for a lock, and PostgresError; nothing is stored then.
    """
    if not mentions_somebody(effects):
        return await _append(connection, effects, lock_timeout_ms), []
    async with connection.transaction(isolation="read_committed"):
        outcomes = await _append(connection, effects, lock_timeout_ms)
        transaction = Transaction(connection, writer)
        await note_mentions(transaction, effects, outcomes)
    return outcomes, transaction.events


async def locked_authors(connection: Connection, effects: Sequence[AppendEvent]) -> list[str]:
    """Return the IDs of the authors whose rows other transactions have locked."""
    authors = {effect.author.user_id for effect in effects if effect.author is not None}
    return [str(row["user_id"]) for row in await connection.fetch(LOCKED_AUTHORS, list(authors))]


async def _append(connection: Connection, effects: Sequence[AppendEvent], lock_timeout_ms: int) -> list[Outcome]:
    if any(effect.change is not None or effect.mentions.of_many for effect in effects):
        return await append_changes(connection, effects, lock_timeout_ms)
    rows = await connection.fetch(
        APPEND,
        [effect.channel_id for effect in effects],
        [effect.sender_id for effect in effects],
        [effect.event_id for effect in effects],
        [effect.event_type for effect in effects],
        [effect.wire for effect in effects],
        [effect.nonce for effect in effects],
        [effect.fingerprint for effect in effects],
        [moment(effect.now_ms) for effect in effects],
        [effect.author.user_id if effect.author is not None else None for effect in effects],
        [effect.author.session_id if effect.author is not None else None for effect in effects],
        PERMITTED,
        OVERSEERS,
        f"{lock_timeout_ms}ms",
    )
    by_place: dict[int, Row] = {row["place"]: row for row in rows}
    return [_outcome(effect, by_place.get(place)) for place, effect in enumerate(effects, start=1)]


def _outcome(effect: AppendEvent, row: Row | None) -> Outcome:
    if row is None:
        return AppendFailure(kind="no_channel")
    if row["refused"]:
        return _refusal(row)
    if row["stored"]:
        return stored_now(effect, row["sequence"])
    known = StoredEvent(
        log_id=effect.channel_id,
        sequence=row["sequence"],
        event_id=row["event_id"],
        wire=row["wire"],
        created_at_ms=to_millis(row["created_at"]),
    )
    return repeat_of(effect, known, row["fingerprint"])


def _refusal(row: Row) -> Exception:
    """Return the refusal of a post, decided by the core's rules on the values that the statement returned."""
    try:
        require_session(row["living"])
        require_role(row["server_roles"], (row["guild_role"], row["channel_role"]), Permission.SEND_MESSAGES)
    except Refusal as refusal:
        return refusal
    return handed_over()

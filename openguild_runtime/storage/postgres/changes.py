"""Stores a batch of appends of which some change messages.

If the changed messages suffice to decide all of them, these are read without locks, and one statement stores the batch,
unless a message has changed meanwhile. Otherwise one transaction reads all that is needed under locks, decides and writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openguild_proto.effects.channels import Appended, AppendEvent
from openguild_proto.log.changes import AppendFacts, ChangeBatch, NewEvent, can_decide_early
from openguild_proto.log.commits import Outcome
from openguild_proto.policy.permissions import ROLES, Permission, roles_with, sees_all
from openguild_proto.records import NO_REACTIONS, MessageState, Pin, React, Redact, SeenMessage, StoredEvent
from openguild_runtime.storage.postgres.search_index import FOLLOW, changed_documents
from openguild_runtime.storage.postgres.stray_edits import redact_strays
from openguild_runtime.storage.postgres.values import (
    Connection,
    Row,
    moment,
    moment_or_none,
    texts,
    to_millis,
    to_millis_or_none,
)

# Names the columns, so that columns added in later releases do not affect it.
SEEN = """
SELECT place, sequence, event_id, author_id, created_at AS posted_at, edited_text, edited_at, versions, redacted_by, pinned_at,
    replies, reactions, crowded, revision, has_reacted
FROM seen_messages_v1($1, $2, $3, $4) AS seen
"""
# The lock timeout is set as in append.py.
JUDGE = """
SELECT place, head_sequence, message_count, pins, is_moved, living, guild_role, channel_role, server_roles,
    known_sequence, known_event_id, known_fingerprint, known_wire, known_created_at,
    sequence, event_id, author_id, created_at AS posted_at, edited_text, edited_at, versions, redacted_by, pinned_at, replies,
    reactions, crowded, has_reacted, text_sequences, text_wires
FROM set_config('lock_timeout', $11, true) AS lock_timeout, LATERAL judge_changes_v1(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, CASE WHEN lock_timeout IS NOT NULL THEN $10::boolean[] END
) AS judged
"""
EVENT_COLUMNS, STATE_COLUMNS, REACTION_COLUMNS, SEEN_COLUMNS, GONE_COLUMNS, CLEARED_COLUMNS = 12, 8, 2, 3, 3, 3
_EVENTS = EVENT_COLUMNS + STATE_COLUMNS + REACTION_COLUMNS
_PLACES = [f"${number}" for number in range(1, _EVENTS + SEEN_COLUMNS + 7)]
# The first row also updates the search index. There is no row if nothing is stored.
CHANGE = f"""
SELECT place, sequence, CASE WHEN place = 1 AND cardinality({_PLACES[-3]}::uuid[]) > 0 THEN (
    SELECT count(*) FROM search_follow_v1({", ".join(_PLACES[-3:])})
) END AS followed
FROM set_config('lock_timeout', {_PLACES[-4]}, true) AS lock_timeout, LATERAL append_changes_v1(
    CASE WHEN lock_timeout IS NOT NULL THEN $1::uuid[] END, {", ".join(_PLACES[1:-4])}
) AS appended
"""
WRITE = f"SELECT place FROM write_changes_v1({', '.join(_PLACES[: _EVENTS + GONE_COLUMNS + CLEARED_COLUMNS])})"
BORN_REDACTED = f"""
INSERT INTO message_states (log_id, sequence, revision, versions, redacted_by, replies, reactions, crowded)
SELECT log_id, sequence, sequence, 1, redacted_by, 0, '{NO_REACTIONS}', false
FROM unnest($1::uuid[], $2::bigint[], $3::text[]) AS born (log_id, sequence, redacted_by)
ON CONFLICT (log_id, sequence) DO NOTHING
"""
_NO_STATE = (None,) * STATE_COLUMNS
PERMITTED = roles_with(Permission.SEND_MESSAGES)
OVERSEERS = tuple(role for role in ROLES if sees_all([role]))


async def append_changes(connection: Connection, effects: Sequence[AppendEvent], lock_timeout_ms: int) -> list[Outcome]:
    """Store the batch and return one outcome for each effect, in order. Raises the same as `append_batch`."""
    outcomes = await _append_foreseen(connection, effects, lock_timeout_ms)
    return outcomes or await append_judged(connection, effects, lock_timeout_ms)


async def _append_foreseen(
    connection: Connection, effects: Sequence[AppendEvent], lock_timeout_ms: int
) -> list[Outcome]:
    """Store a batch decided on messages read without locks. Return [] if they have changed, or if any append is refused."""
    if not all(map(can_decide_early, effects)):
        return []
    batch, seen = ChangeBatch(), await find_seen_messages(connection, effects)
    if not all(map(batch.decide_early, effects, seen)):
        return []
    written, documents = _written(batch, seen), await changed_documents(batch)
    rows = await connection.fetch(CHANGE, *written, PERMITTED, OVERSEERS, f"{lock_timeout_ms}ms", *documents)
    sequences: dict[int, int] = {row["place"]: row["sequence"] for row in rows}
    return [stored_now(effect, sequences[place]) for place, effect in enumerate(effects, start=1) if sequences]


async def find_seen_messages(connection: Connection, effects: Sequence[AppendEvent]) -> list[SeenMessage | None]:
    """Read without locks the message that each effect changes, or None."""
    rows = await connection.fetch(
        SEEN,
        [effect.channel_id for effect in effects],
        [effect.sender_id for effect in effects],
        [effect.change.target if effect.change is not None else None for effect in effects],
        [effect.change.emoji if isinstance(effect.change, React) else None for effect in effects],
    )
    found: list[SeenMessage | None] = [None] * len(effects)
    for row in rows:
        found[row["place"] - 1] = SeenMessage(message_state(row), row["revision"], row["has_reacted"])
    return found


async def append_judged(connection: Connection, effects: Sequence[AppendEvent], lock_timeout_ms: int) -> list[Outcome]:
    """Read under locks, decide and store, in a new transaction."""
    async with connection.transaction(isolation="read_committed"):
        return await judge_and_write(connection, effects, lock_timeout_ms)


async def judge_and_write(
    connection: Connection, effects: Sequence[AppendEvent], lock_timeout_ms: int
) -> list[Outcome]:
    """Read under locks, decide and store, in the caller's transaction."""
    rows = await connection.fetch(JUDGE, *_questions(effects), f"{lock_timeout_ms}ms")
    judged = {row["place"]: row for row in rows}
    batch = ChangeBatch()
    outcomes = []
    for place, effect in enumerate(effects, start=1):
        row = judged.get(place)
        outcomes.append(batch.decide(effect, _facts(effect, row) if row is not None else None))
    if batch.events:
        gone = [(*key, wire) for key, wire in batch.redacted.items()]
        await connection.execute(
            WRITE, *_written(batch), *_columns(gone, GONE_COLUMNS), *_columns(list(batch.cleared), CLEARED_COLUMNS)
        )
        documents = await changed_documents(batch)
        if documents[0]:
            await connection.execute(FOLLOW, *documents)
        for effect, outcome in zip(effects, outcomes, strict=True):
            if isinstance(effect.change, Redact) and isinstance(outcome, Appended) and not outcome.repeated:
                await redact_strays(connection, effect.channel_id, effect.change.target, effect.event_id)
        if batch.born_redacted:
            await connection.execute(BORN_REDACTED, *zip(*batch.born_redacted, strict=True))
    return outcomes


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[tuple[Any, ...]]:
    return list(zip(*rows, strict=True)) or [()] * count


def stored_now(effect: AppendEvent, sequence: int) -> Appended:
    """Return the outcome of an append that was stored."""
    event = StoredEvent(
        log_id=effect.channel_id,
        sequence=sequence,
        event_id=effect.event_id,
        wire=effect.wire,
        created_at_ms=effect.now_ms,
    )
    return Appended(event=event)


def _questions(effects: Sequence[AppendEvent]) -> list[list[Any]]:
    changes = [effect.change for effect in effects]
    return [
        [effect.channel_id for effect in effects],
        [effect.sender_id for effect in effects],
        [effect.event_id for effect in effects],
        [effect.nonce for effect in effects],
        [effect.author.user_id if effect.author is not None else None for effect in effects],
        [effect.author.session_id if effect.author is not None else None for effect in effects],
        [change.target if change is not None else None for change in changes],
        [change.emoji if isinstance(change, React) else None for change in changes],
        [isinstance(change, Redact) for change in changes],
        [isinstance(change, Pin) for change in changes],
    ]


def _facts(effect: AppendEvent, row: Row) -> AppendFacts:
    known = None
    if row["known_sequence"] is not None:
        known = StoredEvent(
            log_id=effect.channel_id,
            sequence=row["known_sequence"],
            event_id=row["known_event_id"],
            wire=row["known_wire"],
            created_at_ms=to_millis(row["known_created_at"]),
        )
    message = message_state(row) if row["sequence"] is not None else None
    wires: tuple[tuple[int, bytes], ...] = ()
    if message is not None and row["text_sequences"] is not None:
        wires = tuple(zip(row["text_sequences"], row["text_wires"], strict=True))
    return AppendFacts(
        head=row["head_sequence"],
        messages=row["message_count"],
        living=row["living"],
        is_moved=row["is_moved"],
        memberships=(row["guild_role"], row["channel_role"]),
        server_roles=texts(row["server_roles"]),
        known=known,
        known_fingerprint=row["known_fingerprint"] or b"",
        message=message,
        has_reacted=row["has_reacted"],
        pins=row["pins"] or 0,
        texts=wires,
    )


def message_state(row: Row) -> MessageState:
    """Return the state of a message, which has only its event if nothing has changed it."""
    if row["versions"] is None:
        return MessageState(row["sequence"], row["event_id"], row["author_id"], to_millis(row["posted_at"]))
    return MessageState(
        sequence=row["sequence"],
        event_id=row["event_id"],
        author_id=row["author_id"],
        created_at_ms=to_millis(row["posted_at"]),
        edited_text=row["edited_text"],
        edited_at_ms=to_millis_or_none(row["edited_at"]),
        versions=row["versions"],
        redacted_by=row["redacted_by"],
        pinned_at_ms=to_millis_or_none(row["pinned_at"]),
        replies=row["replies"],
        reactions=row["reactions"],
        is_crowded=row["crowded"],
    )


def _written(batch: ChangeBatch, seen: Sequence[SeenMessage | None] | None = None) -> list[Sequence[Any]]:
    """Return the columns of the decided batch. `seen` are the messages it was decided on, to be compared when it is stored."""
    states, reactions = dict(batch.states.values()), dict(batch.reactions.values())
    rows = []
    for place, event in enumerate(batch.events):
        change = event.append.change
        rows.append((
            *_event_row(event),
            *(_state_row(states[place]) if place in states else _NO_STATE),
            change.emoji if isinstance(change, React) else None,
            reactions.get(place),
            *(_seen_row(event.append, seen[place]) if seen is not None else ()),
        ))  # fmt: skip
    return list(zip(*rows, strict=True))


def _event_row(event: NewEvent) -> tuple[Any, ...]:
    append = event.append
    return (
        append.channel_id,
        event.sequence,
        append.event_id,
        append.event_type,
        append.sender_id,
        event.wire,
        append.nonce,
        event.fingerprint,
        event.message_number,
        event.target,
        moment(append.now_ms),
        append.author.user_id if append.author is not None else None,
    )


def _state_row(state: MessageState) -> tuple[Any, ...]:
    return (
        state.edited_text,
        moment_or_none(state.edited_at_ms),
        state.versions,
        state.redacted_by,
        moment_or_none(state.pinned_at_ms),
        state.replies,
        state.reactions,
        state.is_crowded,
    )


def _seen_row(effect: AppendEvent, seen: SeenMessage | None) -> tuple[str | None, str | None, int | None]:
    session_id = effect.author.session_id if effect.author is not None else None
    if effect.change is None or seen is None:
        return session_id, None, None
    return session_id, effect.change.target, seen.revision

"""A batch of appends of which some change messages: what they rest on is read, they are decided, and all is written.

One transaction: the locks of the first statement are held until the second one is committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from openguild_proto.effects.channels import AppendEvent
from openguild_proto.log.changes import ChangeBatch, Judgement, NewEvent
from openguild_proto.log.commits import Outcome
from openguild_proto.records import MessageState, Pin, React, Redact, StoredEvent
from openguild_runtime.storage.postgres.values import (
    Connection,
    Row,
    moment,
    moment_or_none,
    texts,
    to_millis,
    to_millis_or_none,
)

# Names the columns: one that a later release adds changes nothing. The limit of locks is set as in append.py.
JUDGE = """
SELECT place, head_sequence, message_count, pins, living, guild_role, channel_role, server_roles,
    known_sequence, known_event_id, known_fingerprint, known_wire, known_created_at,
    sequence, event_id, author_id, created_at, edited_text, edited_at, versions, redacted_by, pinned_at, replies, reactions,
    has_reacted, text_sequences, text_wires
FROM set_config('lock_timeout', $11, true) AS lock_timeout, LATERAL judge_changes_v1(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, CASE WHEN lock_timeout IS NOT NULL THEN $10::boolean[] END
) AS judged
"""
EVENT_COLUMNS, STATE_COLUMNS, REACTION_COLUMNS, GONE_COLUMNS = 12, 12, 5, 3
_PARAMETERS = EVENT_COLUMNS + STATE_COLUMNS + REACTION_COLUMNS + GONE_COLUMNS
WRITE = f"SELECT write_changes_v1({', '.join(f'${number}' for number in range(1, _PARAMETERS + 1))})"


async def append_changes(connection: Connection, effects: Sequence[AppendEvent], lock_timeout_ms: int) -> list[Outcome]:
    """Store the batch; one outcome for each effect, in order. Raises as `append_batch` does."""
    async with connection.transaction(isolation="read_committed"):
        rows = await connection.fetch(JUDGE, *_questions(effects), f"{lock_timeout_ms}ms")
        judged = {row["place"]: row for row in rows}
        batch = ChangeBatch()
        outcomes = []
        for place, effect in enumerate(effects, start=1):
            row = judged.get(place)
            outcomes.append(batch.decide(effect, _judgement(effect, row) if row is not None else None))
        if batch.events:
            await connection.execute(WRITE, *_written(batch))
    return outcomes


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


def _judgement(effect: AppendEvent, row: Row) -> Judgement:
    known = None
    if row["known_sequence"] is not None:
        known = StoredEvent(
            channel_id=effect.channel_id,
            sequence=row["known_sequence"],
            event_id=row["known_event_id"],
            wire=row["known_wire"],
            created_at_ms=to_millis(row["known_created_at"]),
        )
    message = message_state(row) if row["sequence"] is not None else None
    wires: tuple[tuple[int, bytes], ...] = ()
    if message is not None and row["text_sequences"] is not None:
        wires = tuple(zip(row["text_sequences"], row["text_wires"], strict=True))
    return Judgement(
        head=row["head_sequence"],
        messages=row["message_count"],
        living=row["living"],
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
    """A message by its event and, where anything has happened to it, its state; `reactions` begin with emoji and number."""
    if row["versions"] is None:
        return MessageState(row["sequence"], row["event_id"], row["author_id"], to_millis(row["created_at"]))
    reactions = msgspec.json.decode(row["reactions"]) if row["reactions"] is not None else ()
    return MessageState(
        sequence=row["sequence"],
        event_id=row["event_id"],
        author_id=row["author_id"],
        created_at_ms=to_millis(row["created_at"]),
        edited_text=row["edited_text"],
        edited_at_ms=to_millis_or_none(row["edited_at"]),
        versions=row["versions"],
        redacted_by=row["redacted_by"],
        pinned_at_ms=to_millis_or_none(row["pinned_at"]),
        replies=row["replies"],
        reactions=tuple((used[0], used[1]) for used in reactions),
    )


def _written(batch: ChangeBatch) -> list[Sequence[Any]]:
    return [
        *_columns([_event_row(event) for event in batch.events], EVENT_COLUMNS),
        *_columns([_state_row(channel_id, state) for (channel_id, _), state in batch.states.items()], STATE_COLUMNS),
        *_columns([(*key, adds) for key, adds in batch.reactions.items()], REACTION_COLUMNS),
        *_columns([(*key, wire) for key, wire in batch.redacted.items()], GONE_COLUMNS),
    ]


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * count


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


def _state_row(channel_id: str, state: MessageState) -> tuple[Any, ...]:
    return (
        channel_id,
        state.sequence,
        state.event_id,
        state.author_id,
        moment(state.created_at_ms),
        state.edited_text,
        moment_or_none(state.edited_at_ms),
        state.versions,
        state.redacted_by,
        moment_or_none(state.pinned_at_ms),
        state.replies,
        msgspec.json.encode(state.reactions).decode(),
    )

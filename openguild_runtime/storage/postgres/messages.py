"""Messages in their current state, in PostgreSQL. A page is read with one statement, so from one snapshot."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from openguild_proto.effects.messages import (
    FindMessage,
    FoundMessage,
    ListPins,
    MessagePage,
    MessageVersion,
    ReadMessages,
    ReadVersions,
)
from openguild_proto.effects.performs import performs
from openguild_proto.errors import LocalProtocolError
from openguild_proto.limits import MAX_SEQUENCE, MAX_SHOWN_REACTORS
from openguild_proto.policy.messages import page_around
from openguild_proto.policy.reactions import Crowd
from openguild_proto.records import MessageState
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.values import Connection, Row, moment_or_none, to_millis

# In the order in which `_page` unpacks them; the fields of MessageState are last.
COLUMNS = """head_sequence, in_page, target, wire, crowds, sequence, event_id, author_id, created_ms, edited_text, edited_ms,
    versions, redacted_by, pinned_ms, replies, reactions"""
PAGE = f"SELECT {COLUMNS} FROM message_page_v1($1, $2, $3, $4, $5, $6, $7)"
PINS = f"""
SELECT {COLUMNS} FROM messages_v1($1, $2, $3, ARRAY(
    SELECT sequence FROM message_states WHERE log_id = $1 AND pinned_at > '-infinity'
    AND ($4::timestamptz IS NULL OR (pinned_at, sequence) < ($4, $5::bigint))
    ORDER BY pinned_at DESC, sequence DESC LIMIT $6
))
"""
ONE = f"""
SELECT {COLUMNS} FROM messages_v1($1, $2, $3, ARRAY(
    SELECT sequence FROM log_events WHERE log_id = $1 AND event_id = $4
))
"""
VERSIONS = """
WITH message AS (
    SELECT sequence, event_id, wire, created_at FROM log_events
    WHERE log_id = $1 AND event_id = $2 AND event_type = 'message'
)
SELECT sequence, event_id, wire, created_at FROM message
UNION ALL (
    SELECT e.sequence, e.event_id, e.wire, e.created_at FROM message AS m JOIN log_events AS e
    ON e.log_id = $1 AND e.event_type = 'message.edited' AND e.target = m.sequence
)
ORDER BY sequence
"""


_VERSIONS = 2  # its index after `created_ms`
_crowds = msgspec.json.Decoder(tuple[Crowd, ...])


@performs(ReadMessages, Mode.QUERY)
async def read_messages(connection: Connection, effect: ReadMessages) -> MessagePage | None:
    limit = max(0, effect.limit)
    upper, last, lower, first = MAX_SEQUENCE, 0, MAX_SEQUENCE, 0
    match effect.after, effect.before, effect.around:
        case None, None, None:
            last = limit
        case int(after), None, None:
            lower, first = after, limit
        case None, int(before), None:
            upper, last = before, limit
        case None, None, int(around):
            upper, lower = min(around, MAX_SEQUENCE - 1) + 1, around
            last, first = page_around(limit)
        case _:
            raise LocalProtocolError("a page has one bound: after, before or around")
    rows = await connection.fetch(
        PAGE, effect.channel_id, effect.reader_id, MAX_SHOWN_REACTORS, upper, last, lower, first
    )
    return _page(rows)


@performs(FindMessage, Mode.QUERY)
async def find_message(connection: Connection, effect: FindMessage) -> MessagePage | None:
    rows = await connection.fetch(ONE, effect.channel_id, effect.reader_id, MAX_SHOWN_REACTORS, effect.event_id)
    page = _page(rows)
    return page if page is not None and page.messages else None


@performs(ListPins, Mode.QUERY)
async def list_pins(connection: Connection, effect: ListPins) -> MessagePage | None:
    pinned_at_ms, sequence = effect.behind if effect.behind is not None else (None, None)
    rows = await connection.fetch(
        PINS,
        effect.channel_id,
        effect.reader_id,
        MAX_SHOWN_REACTORS,
        moment_or_none(pinned_at_ms),
        sequence,
        effect.limit,
    )
    page = _page(rows)
    if page is None:
        return None
    newest_first = sorted(
        page.messages, key=lambda found: (found.state.pinned_at_ms or 0, found.state.sequence), reverse=True
    )
    return msgspec.structs.replace(page, messages=tuple(newest_first))


@performs(ReadVersions, Mode.QUERY)
async def read_versions(connection: Connection, effect: ReadVersions) -> tuple[MessageVersion, ...] | None:
    rows = await connection.fetch(VERSIONS, effect.channel_id, effect.event_id)
    versions = tuple(
        MessageVersion(row["sequence"], row["event_id"], row["wire"], to_millis(row["created_at"])) for row in rows
    )
    return versions or None


def _page(rows: Sequence[Row]) -> MessagePage | None:
    """Return the page of these rows, oldest message first, or None without rows."""
    if not rows:
        return None
    places: list[tuple[int, int | None]] = []
    found: dict[int, FoundMessage] = {}
    for row in rows:
        _, in_page, target, wire, crowds, sequence, event_id, author_id, created_ms, *changed = row
        if sequence is None:
            continue
        if changed[_VERSIONS] is None:  # nothing has changed the message
            state = MessageState(sequence, event_id, author_id, created_ms)
        else:
            state = MessageState(*(sequence, event_id, author_id, created_ms, *changed, crowds is not None))
        found[sequence] = FoundMessage(state, wire, () if crowds is None else _crowds.decode(crowds))
        if in_page:
            places.append((sequence, target))
    places.sort()
    originals = {found[target].state.event_id: found[target] for _, target in places if target in found}
    return MessagePage(tuple(found[sequence] for sequence, _ in places), originals, head=rows[0]["head_sequence"])

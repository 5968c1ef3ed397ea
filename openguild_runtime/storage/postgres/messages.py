"""Messages as they are now, in PostgreSQL: each page is one statement, and so of one moment."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from openguild_proto.canonical.replies import replied_to
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
from openguild_runtime.storage.postgres.changes import message_state
from openguild_runtime.storage.postgres.mode import Mode
from openguild_runtime.storage.postgres.values import Connection, Row, to_millis

COLUMNS = """head_sequence, in_page, sequence, event_id, author_id, created_at AS posted_at, wire, edited_text, edited_at, versions,
    redacted_by, pinned_at, replies, reactions"""
PAGE = f"SELECT {COLUMNS} FROM message_page_v1($1, $2, $3, $4, $5, $6, $7)"
PINS = f"""
SELECT {COLUMNS} FROM messages_v1($1, $2, $3, ARRAY(
    SELECT sequence FROM message_states WHERE log_id = $1 AND pinned_at > '-infinity'
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
    page = _page(await connection.fetch(PINS, effect.channel_id, effect.reader_id, MAX_SHOWN_REACTORS))
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
    """Oldest first."""
    if not rows:
        return None
    messages: list[FoundMessage] = []
    found: dict[str, FoundMessage] = {}
    for row in rows:
        if row["sequence"] is not None:
            message = found[row["event_id"]] = _found(row)
            if row["in_page"]:
                messages.append(message)
    messages.sort(key=lambda message: message.state.sequence)
    answered = (replied_to(message.wire) for message in messages)
    originals = {event_id: found[event_id] for event_id in answered if event_id is not None and event_id in found}
    return MessagePage(tuple(messages), originals, head=rows[0]["head_sequence"])


def _found(row: Row) -> FoundMessage:
    used = msgspec.json.decode(row["reactions"]) if row["reactions"] is not None else ()
    return FoundMessage(
        message_state(row),
        row["wire"],
        reacted=tuple(emoji for emoji, _, is_reader, _ in used if is_reader),
        reactors=tuple((emoji, tuple(users)) for emoji, _, _, users in used),
    )

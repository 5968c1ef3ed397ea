"""Searches messages (migrations/first/search.py). For the index see search_index.py.

One statement reads the rights of the reader, the index, and the messages that are not indexed yet, in one snapshot. The latter
are compared here, by the core's rules.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import asyncpg

from openguild_proto.canonical.texts import posted_text, posted_with
from openguild_proto.effects import Overloaded
from openguild_proto.effects.search import HitChannel, SearchHit, SearchMessages, SearchTooWide
from openguild_proto.policy.permissions import ROLES, Permission, roles_with, sees_all
from openguild_proto.policy.search import Has, is_found
from openguild_runtime.storage.postgres.changes import message_state
from openguild_runtime.storage.postgres.search_terms import query_of
from openguild_runtime.storage.postgres.values import Connection, Row, moment, moment_or_none
from openguild_runtime.system.turns import Pauses

LIMIT_SECS = 2.0  # for one search; after that it is refused as too wide
SCAN_MOST = 10_000  # with fewer messages in the searched channels, the index of terms is not used
# messages not indexed yet that are compared one by one; with more, searches are refused as overloaded
TAIL_MOST = 2_000
READERS = roles_with(Permission.READ)
OVERSEERS = tuple(role for role in ROLES if sees_all([role]))

SEARCH = """
SELECT channel_id, name, guild_id, is_indexed, sequence, event_id, author_id, created_at AS posted_at, wire, edited_text,
    edited_at, versions, redacted_by, pinned_at, replies, reactions, crowded
FROM search_messages_v1($1, $2, $3, $4, $5::text::tsquery, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
"""


async def search_messages(connection: Connection, effect: SearchMessages) -> tuple[SearchHit, ...] | SearchTooWide:
    """Find the newest hits. Raises Overloaded while too many messages are not indexed yet."""
    wanted = effect.wanted
    behind = effect.behind
    behind_log, _, behind_sequence = (behind.key if behind is not None else "").partition(":")
    try:
        async with connection.transaction(isolation="read_committed", readonly=True):
            await connection.execute(f"SET LOCAL statement_timeout = {int(LIMIT_SECS * 1000)}")
            rows = await connection.fetch(
                SEARCH,
                effect.reader_id,
                wanted.places,
                READERS,
                OVERSEERS,
                query_of(wanted),
                moment_or_none(wanted.since_ms),
                moment_or_none(wanted.until_ms),
                moment(behind.at_ms) if behind is not None else None,
                behind_log or None,
                int(behind_sequence) if behind_sequence else None,
                Has.PIN in wanted.has,
                Has.REACTION in wanted.has,
                SCAN_MOST,
                TAIL_MOST,
                effect.limit,
            )
    except asyncpg.QueryCanceledError:
        return SearchTooWide()
    if any(row["sequence"] is None for row in rows):
        raise Overloaded
    hits = [_hit(row) for row in rows if row["is_indexed"]]
    hits += await _of_tail([row for row in rows if not row["is_indexed"]], effect)
    return tuple(heapq.nlargest(effect.limit, hits, key=lambda hit: (hit.place.at_ms, hit.place.key)))


async def _of_tail(rows: Sequence[Row], effect: SearchMessages) -> list[SearchHit]:
    """Return the hits among messages that are not indexed yet."""
    hits = []
    pauses = Pauses()
    for row in rows:
        hit = _hit(row)
        if effect.behind is not None and (hit.place.at_ms, hit.place.key) >= (effect.behind.at_ms, effect.behind.key):
            continue
        text = _text(hit.state.edited_text, hit.wire)
        if is_found(effect.wanted, hit.state, text, posted_with(hit.wire)):
            hits.append(hit)
        await pauses.pause_if_due()
    return hits


def _hit(row: Row) -> SearchHit:
    channel = HitChannel(str(row["channel_id"]), row["name"], str(row["guild_id"]))
    return SearchHit(channel, message_state(row), row["wire"])


def _text(edited_text: str | None, wire: bytes) -> str:
    return posted_text(wire) if edited_text is None else edited_text

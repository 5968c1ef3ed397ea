"""Keeps the index of what messages say: new ones soon after their post, changes in their transaction.

Each replica indexes logs that it knows have grown, and at intervals all that are behind. Two never index one log
at once, and another replica finishes what a killed one leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

from openguild_proto.canonical.texts import posted_text, posted_with
from openguild_proto.log.changes import ChangeBatch
from openguild_proto.records import Edit, Redact
from openguild_runtime.storage.postgres.search_terms import document_of
from openguild_runtime.storage.postgres.values import EPOCH, Connection, Row, to_millis
from openguild_runtime.system.turns import Pauses

FOLLOW = "SELECT search_follow_v1($1, $2, $3)"
Documents: TypeAlias = tuple[Sequence[str], Sequence[int], Sequence[str | None]]
"""The arguments of `search_follow_v1`: logs, sequences of messages, and their new documents; None: the message has none."""
BEHIND = """
SELECT l.log_id, l.message_count - coalesce(p.messages, 0) AS missing
FROM logs AS l LEFT JOIN search_progress AS p ON p.log_id = l.log_id
WHERE l.kind = 'channel' AND l.message_count > coalesce(p.messages, 0) LIMIT $1
"""
CLAIM = """
SELECT log_id, message_count, sequence, message_number, author_id, created_at, wire, edited_text, is_redacted
FROM search_claim_v1($1, $2)
"""
INDEX = "SELECT search_index_v1($1, $2, $3, $4, $5, $6, $7, $8)"

MAX_BEHIND = 10_000  # logs that one look through all of them finds
CLAIM_LOGS = 256  # logs of one transaction of indexing
CLAIM_MESSAGES = 256  # messages of one transaction of indexing, for which changes in their logs wait


async def changed_documents(batch: ChangeBatch) -> Documents:
    """Return the documents of messages that have other texts, or none any more, by the changes of the batch."""
    documents: dict[tuple[str, int], str | None] = {}
    pauses = Pauses()
    for event in batch.events:
        if isinstance(event.append.change, Edit | Redact) and event.target is not None:
            channel_id = event.append.channel_id
            if (channel_id, event.target) not in batch.states:
                continue  # it did nothing to the message (`apply_decided`)
            _, state = batch.states[channel_id, event.target]
            documents[channel_id, event.target] = None
            if state.redacted_by is None and state.edited_text is not None:
                documents[channel_id, event.target] = document_of(
                    state.edited_text, author_id=state.author_id, created_at_ms=state.created_at_ms
                )
                await pauses.pause_if_due()
    places = list(documents)
    return [log_id for log_id, _ in places], [sequence for _, sequence in places], list(documents.values())


class SearchIndexer:
    """Call `grown` for each log that got a message, and `index` in a transaction until it returns False."""

    def __init__(self) -> None:
        self._grown: dict[str, None] = {}
        self.behind = 0  # messages that were not indexed when `find_behind` looked last

    def grown(self, log_id: str) -> None:
        """Note that there is something to index."""
        self._grown[log_id] = None

    @property
    def is_idle(self) -> bool:
        """Whether no log is known to be behind."""
        return not self._grown

    async def find_behind(self, connection: Connection) -> None:
        """Note all logs that are behind."""
        rows = await connection.fetch(BEHIND, MAX_BEHIND)
        self._grown.update(dict.fromkeys(str(row["log_id"]) for row in rows))
        self.behind = sum(row["missing"] for row in rows)

    async def index(self, connection: Connection) -> bool:
        """Index about CLAIM_MESSAGES messages in a transaction. True: there is so much to do that the next one is due at once.

        A few messages wait for others: a transaction costs as much as a dozen of them.
        """
        asked = list(self._grown)[:CLAIM_LOGS]
        is_more = len(self._grown) > len(asked)
        for log_id in asked:  # it may grow again from here on
            del self._grown[log_id]
        try:
            async with connection.transaction(isolation="read_committed"):
                await connection.execute("SET LOCAL synchronous_commit = off")  # what a crash loses is indexed again
                rows = await connection.fetch(CLAIM, asked, CLAIM_MESSAGES)
                done = await self._index(connection, rows) if rows else None
        except BaseException:
            self._grown = {**dict.fromkeys(asked), **self._grown}
            raise
        if (
            done is not None
        ):  # else they are indexed or locked; of locked ones a later look through all logs finds the rest
            self._grown.update(dict.fromkeys(log_id for log_id in asked if log_id not in done))
        return is_more or len(rows) >= CLAIM_MESSAGES

    async def _index(self, connection: Connection, rows: Sequence[Row]) -> set[str]:
        """Return the logs that are indexed to their head."""
        documents = [row for row in rows if not row["is_redacted"]]
        texts: list[str] = []
        pauses = Pauses()
        for row in documents:
            text = posted_text(row["wire"]) if row["edited_text"] is None else row["edited_text"]
            texts.append(
                document_of(
                    text,
                    author_id=row["author_id"],
                    created_at_ms=to_millis(row["created_at"]),
                    posted=posted_with(row["wire"]),
                )
            )
            await pauses.pause_if_due()
        progress = _progress_of(rows)
        await connection.execute(
            INDEX,
            [row["log_id"] for row in documents],
            [row["sequence"] for row in documents],
            [row["created_at"] for row in documents],
            texts,
            list(progress),
            [log.upto for log in progress.values()],
            [log.messages for log in progress.values()],
            [log.newest for log in progress.values()],
        )
        return {str(log_id) for log_id, log in progress.items() if log.is_head}


class _Log(NamedTuple):
    upto: int = 0  # sequence
    messages: int = 0
    is_head: bool = False
    newest: datetime = EPOCH


def _progress_of(rows: Sequence[Row]) -> dict[Any, _Log]:
    """The place up to which each log is indexed with these rows."""
    progress: dict[Any, _Log] = {}
    for row in rows:
        log = progress.get(row["log_id"], _Log())
        if row["sequence"] > log.upto:
            is_head = row["message_number"] >= row["message_count"]
            log = log._replace(upto=row["sequence"], messages=row["message_number"], is_head=is_head)
        progress[row["log_id"]] = log._replace(newest=max(log.newest, row["created_at"]))
    return progress

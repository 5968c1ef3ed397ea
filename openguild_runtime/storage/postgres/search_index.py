"""Maintains the search index: new messages are indexed soon after their post, changes in their transaction.

Each replica indexes logs to which it has appended, and at intervals all logs that are behind. Two replicas never index the same
log at once, and the work of a killed replica is finished by another.
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
"""The arguments of `search_follow_v1`: logs, sequences of messages, and their new documents, or None to delete one."""
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

MAX_BEHIND = 10_000  # logs found by one sweep over all logs
CLAIM_LOGS = 256  # logs in one transaction
CLAIM_MESSAGES = 256  # messages in one transaction, for which changes in their logs wait


async def changed_documents(batch: ChangeBatch) -> Documents:
    """Return the new documents of messages that the batch edits or redacts."""
    documents: dict[tuple[str, int], str | None] = {}
    pauses = Pauses()
    for event in batch.events:
        if isinstance(event.append.change, Edit | Redact) and event.target is not None:
            channel_id = event.append.channel_id
            if (channel_id, event.target) not in batch.states:
                continue  # the change had no effect (`apply_decided`)
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
    """The indexer of a replica. Call `log_grew` for each log that got a message, and `index` until it returns False."""

    def __init__(self) -> None:
        self._grown: dict[str, None] = {}
        self.behind = 0  # messages not indexed at the last call of `find_behind`

    def log_grew(self, log_id: str) -> None:
        """Note that a log has messages to index."""
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
        """Index about CLAIM_MESSAGES messages in a transaction; return True if the next one is due at once.

        A few remaining messages wait for more, because a transaction costs as much as a dozen of them.
        """
        asked = list(self._grown)[:CLAIM_LOGS]
        is_more = len(self._grown) > len(asked)
        for log_id in asked:  # before the statement, because logs may grow meanwhile
            del self._grown[log_id]
        try:
            async with connection.transaction(isolation="read_committed"):
                # messages lost in a crash are indexed again
                await connection.execute("SET LOCAL synchronous_commit = off")
                rows = await connection.fetch(CLAIM, asked, CLAIM_MESSAGES)
                done = await self._index(connection, rows) if rows else None
        except BaseException:
            self._grown = {**dict.fromkeys(asked), **self._grown}
            raise
        if done is not None:  # else they are indexed already, or locked, and then found by a later sweep
            self._grown.update(dict.fromkeys(log_id for log_id in asked if log_id not in done))
        return is_more or len(rows) >= CLAIM_MESSAGES

    async def _index(self, connection: Connection, rows: Sequence[Row]) -> set[str]:
        """Index these messages, and return the logs that are completely indexed by now."""
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
    """Return how far each log is indexed once these rows are."""
    progress: dict[Any, _Log] = {}
    for row in rows:
        log = progress.get(row["log_id"], _Log())
        if row["sequence"] > log.upto:
            is_head = row["message_number"] >= row["message_count"]
            log = log._replace(upto=row["sequence"], messages=row["message_number"], is_head=is_head)
        progress[row["log_id"]] = log._replace(newest=max(log.newest, row["created_at"]))
    return progress

"""Who may see a channel is asked by every post and every joining stream: in a reconnect storm thousands of questions
become tens of queries."""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from openguild_proto.effects import FindChannelAccess
from openguild_proto.records import ChannelAccess
from openguild_runtime.storage.postgres.batcher import MAX_BATCH_ITEMS, Batcher, Perform, Waiting

MAX_WAITING = 20_000
QUESTION_BYTES = 512  # two identifiers, a future, their places

Question: TypeAlias = Waiting[FindChannelAccess, ChannelAccess | None]


class AccessBatcher(Batcher[FindChannelAccess, ChannelAccess | None]):
    """First come, first served; every question is of one size, so their number bounds their bytes (10 MiB)."""

    def __init__(self, read: Perform[FindChannelAccess, ChannelAccess | None]) -> None:
        super().__init__(read, max_items=MAX_WAITING, max_bytes=MAX_WAITING * QUESTION_BYTES)
        self._line: deque[Question] = deque()

    def _size(self, item: FindChannelAccess) -> int:
        return QUESTION_BYTES

    def _put(self, waiting: Question) -> None:
        self._line.append(waiting)

    def _take(self) -> list[Question]:
        return [self._line.popleft() for _ in range(min(len(self._line), MAX_BATCH_ITEMS))]

"""Group commit: appends that wait together are stored by one transaction (PROTOCOL 7.1.2)."""

from __future__ import annotations

import asyncio
import time
from typing import TypeAlias

from openguild_proto.effects import Overloaded
from openguild_proto.effects.channels import Appended, AppendEvent, AppendFailure, Unchanged
from openguild_proto.limits import BLOCKED_SECS
from openguild_proto.log.appends import AppendQueue
from openguild_runtime.storage.postgres.batcher import Batcher, Perform, settle_all

Commit: TypeAlias = Perform[AppendEvent, Appended | Unchanged | AppendFailure]


class CommitQueue(Batcher[AppendEvent, Appended | Unchanged | AppendFailure]):
    """`commit(appends)` stores a batch in one transaction and returns one outcome for each, in order.

    `share` and `blocked_secs` are those of AppendQueue, which decides whose turn it is.
    """

    def __init__(self, commit: Commit, *, share: int = 1, blocked_secs: float = BLOCKED_SECS) -> None:
        self._appends: AppendQueue[asyncio.Future[Appended | Unchanged | AppendFailure]] = AppendQueue(
            share=share, blocked_secs=blocked_secs
        )
        super().__init__(self._appends, commit)

    def block(self, channel_id: str) -> None:
        """Refuse what waits for this channel, and for a moment what comes. After that it is suspect."""
        settle_all(self._appends.block(channel_id, time.monotonic()), Overloaded())

    def suspects(self, channel_id: str) -> bool:
        """It was blocked and has stored nothing since: its batch is its own."""
        return self._appends.suspects(channel_id)

    def stored(self, channel_id: str) -> None:
        """An append to it has been stored: it is not suspect."""
        self._appends.stored(channel_id)

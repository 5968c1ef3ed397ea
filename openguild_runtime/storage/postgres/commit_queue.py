"""Group commit: one transaction stores the appends that are queued together (PROTOCOL 7.1.2)."""

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

    `share`, `blocked_secs`: see AppendQueue, which decides the order.
    """

    def __init__(self, commit: Commit, *, share: int = 1, blocked_secs: float = BLOCKED_SECS) -> None:
        self._appends: AppendQueue[asyncio.Future[Appended | Unchanged | AppendFailure]] = AppendQueue(
            share=share, blocked_secs=blocked_secs
        )
        super().__init__(self._appends, commit)

    def block(self, channel_id: str) -> None:
        """Refuse the queued appends of this channel, and new ones for a moment; after that it is suspect."""
        settle_all(self._appends.block(channel_id, time.monotonic()), Overloaded())

    def suspects(self, channel_id: str) -> bool:
        """Return whether the channel was blocked and has stored nothing since. Its next batch holds no other channel."""
        return self._appends.suspects(channel_id)

    def stored(self, channel_id: str) -> None:
        """Note that an append to the channel was stored: it is no longer suspect."""
        self._appends.stored(channel_id)

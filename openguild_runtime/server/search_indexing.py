"""The job that indexes new messages for the search, shortly after they are posted (PROTOCOL 7.11.11)."""

from __future__ import annotations

import random

import anyio

from openguild_proto.effects import Overloaded, StorageUnavailable
from openguild_proto.effects.search import IndexMessages
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.background import log_exceptions

INDEX_SECS = 1.0
TURNS_BETWEEN_SWEEPS = 60  # a sweep finds messages that killed replicas did not index


async def index_forever(storage: Storage) -> None:
    """Index until cancelled. The first turn goes through all logs."""
    turn = 0
    while True:
        with log_exceptions("indexing for searching", StorageUnavailable, Overloaded):
            await index(storage, everywhere=turn % TURNS_BETWEEN_SWEEPS == 0)
        turn += 1
        await anyio.sleep(INDEX_SECS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret


async def index(storage: Storage, *, everywhere: bool) -> None:
    """Index all messages that are not indexed yet; `everywhere` goes through all logs. Raises StorageUnavailable."""
    more = await storage.perform(IndexMessages(everywhere=everywhere))
    while more:
        more = await storage.perform(IndexMessages())

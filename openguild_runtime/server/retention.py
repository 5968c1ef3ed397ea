"""The retention job: every few minutes, each replica deletes expired rows in small batches (PROTOCOL 11.6.3)."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable

import anyio

from openguild_proto.effects import Overloaded, StorageUnavailable
from openguild_proto.effects.retention import PruneExpired, PurgeDeleted
from openguild_proto.policy.repeats import forgotten_until
from openguild_proto.settings.sections import SessionSettings
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.background import log_exceptions
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy

PRUNE_SECS = 300.0
BATCH_ROWS = 200
MAX_BATCHES = 50  # in one run; the rest waits for the next run
PURGE_SECS = 30.0  # between two searches for the rows of deleted logs
PURGED_ROWS = 5_000  # in a batch: about 20 ms
CONTROL_KEPT_SECS = 7 * 86_400  # a replica that was away for longer rechecks every stream


async def prune_forever(
    storage: Storage, sources: ClocksAndEntropy, session: Callable[[], SessionSettings], every_secs: float = PRUNE_SECS
) -> None:
    """Prune until cancelled. Each run starts at a random user, so that in time all users are reached.

    `session` returns the current settings.
    """
    while True:
        await anyio.sleep(every_secs * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
        with log_exceptions("retention", StorageUnavailable, Overloaded):
            await prune(storage, sources, session().login_window_secs)


async def prune(storage: Storage, sources: ClocksAndEntropy, login_window_secs: int) -> None:
    """Delete expired rows, in at most MAX_BATCHES batches. Raises StorageUnavailable."""
    now_ms = int(sources.wall() * 1000)
    for _ in range(MAX_BATCHES):
        more = await storage.perform(
            PruneExpired(
                now_ms=now_ms,
                from_user=str(uuid.UUID(bytes=sources.random_bytes(16))),
                control_before_ms=now_ms - CONTROL_KEPT_SECS * 1000,
                attempts_before_ms=now_ms - 3 * login_window_secs * 1000,  # as the counter of attempts does
                answers_before_ms=forgotten_until(now_ms),
                limit=BATCH_ROWS,
            )
        )
        if not more:
            return


async def purge_forever(storage: Storage) -> None:
    """Delete the rows of deleted logs until cancelled. No two replicas work on the same log at a time."""
    while True:
        await anyio.sleep(PURGE_SECS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
        with log_exceptions("deleting what is left of logs", StorageUnavailable, Overloaded):
            while await storage.perform(PurgeDeleted(PURGED_ROWS)):
                pass

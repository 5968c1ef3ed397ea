"""Records the keys of this server as in use, so that others know until when they are good (PROTOCOL 16.1.5)."""

from __future__ import annotations

import anyio
import structlog

from openguild_proto.canonical.keys import EventSigner
from openguild_proto.effects import Overloaded, StorageUnavailable
from openguild_proto.effects.federation import RecordOwnKey
from openguild_proto.federation.keys import OVERLAP_MS
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.background import log_exceptions
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy

RECORD_SECS = 3_600.0
RETRY_SECS = 5.0  # where the store could not be reached

log = structlog.get_logger("openguild.federation")


async def record_keys_forever(storage: Storage, signers: tuple[EventSigner, ...], sources: ClocksAndEntropy) -> None:
    """Until cancelled: the current key each hour, the retired ones at the start."""
    due = signers
    while due:
        recorded = False
        with log_exceptions("recording keys", StorageUnavailable, Overloaded):
            for signer in due:
                await record_key(storage, signer, sources)
            recorded = True
        due = signers[:1] if recorded else due
        await anyio.sleep(RECORD_SECS if recorded else RETRY_SECS)


async def record_key(storage: Storage, signer: EventSigner, sources: ClocksAndEntropy) -> None:
    """Raises StorageUnavailable."""
    now_ms = int(sources.wall() * 1_000)
    if not await storage.perform(
        RecordOwnKey(key_id=signer.key_id, public_key=signer.public, now_ms=now_ms, not_after=now_ms + OVERLAP_MS)
    ):
        log.error(
            "other servers do not accept this key: its id was used for another key, or it is revoked; choose another "
            "federation.key_id",
            key_id=signer.key_id,
        )

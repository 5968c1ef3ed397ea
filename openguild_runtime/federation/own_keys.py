"""Records that this server's keys are in use, so that other servers know how long they are valid (PROTOCOL 16.1.5)."""

from __future__ import annotations

import anyio
import structlog

from openguild_proto.canonical.keys import EventSigner
from openguild_proto.effects import Overloaded, StorageUnavailable
from openguild_proto.effects.federation import OwnKey, RecordOwnKey
from openguild_proto.federation.keys import OVERLAP_MS
from openguild_proto.limits import MAX_OWN_KEYS
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.background import log_exceptions
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy

RECORD_SECS = 3_600.0
RETRY_SECS = 5.0  # after the store could not be reached

REFUSALS = {
    OwnKey.REFUSED: "its id was used for another key, or it is revoked; choose another federation.key_id",
    OwnKey.TOO_MANY: f"this server has had {MAX_OWN_KEYS} others; go back to the last one that was accepted",
}

log = structlog.get_logger("openguild.federation")


async def record_keys(storage: Storage, signers: tuple[EventSigner, ...], sources: ClocksAndEntropy) -> None:
    """Record all keys. Until then, this server does not publish its keys. Raises StorageUnavailable, Overloaded."""
    for signer in signers:
        await _record_key(storage, signer, sources)


async def record_keys_forever(storage: Storage, signers: tuple[EventSigner, ...], sources: ClocksAndEntropy) -> None:
    """Record the current key every hour, until cancelled."""
    pause = RECORD_SECS
    while signers:
        await anyio.sleep(pause)
        pause = RETRY_SECS
        with log_exceptions("recording keys", StorageUnavailable, Overloaded):
            await record_keys(storage, signers[:1], sources)
            pause = RECORD_SECS


async def _record_key(storage: Storage, signer: EventSigner, sources: ClocksAndEntropy) -> None:
    """Raises StorageUnavailable."""
    now_ms = int(sources.wall() * 1_000)
    recorded = await storage.perform(
        RecordOwnKey(key_id=signer.key_id, public_key=signer.public, now_ms=now_ms, not_after=now_ms + OVERLAP_MS)
    )
    if recorded in REFUSALS:
        log.error(f"other servers do not accept this key: {REFUSALS[recorded]}", key_id=signer.key_id)

"""Attempts to log in or register, counted for all replicas together."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.base import StorageEffect


class AttemptKey(msgspec.Struct, frozen=True, gc=False):
    """`digest`: BLAKE3 of what is limited, so that the store holds neither addresses nor names."""

    digest: bytes
    limit: int


class CountAttempt(StorageEffect[float | None], frozen=True):
    """Admit one attempt under every key, or under none.

    None: admitted. Otherwise the seconds after which it may be. No window of `window_secs` holds more than a key's
    limit, up to a sixtieth of the window on the safe side.
    """

    keys: tuple[AttemptKey, ...]
    window_secs: int
    now_ms: int

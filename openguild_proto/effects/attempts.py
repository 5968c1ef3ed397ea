"""Counts attempts to log in, register and refresh, for all replicas together."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.base import StorageEffect


class AttemptKey(msgspec.Struct, frozen=True, gc=False):
    """The key of one limit. `digest`: BLAKE3 of its text, so that the store holds neither addresses nor names."""

    digest: bytes
    limit: int


class CountAttempt(StorageEffect[float | None], frozen=True):
    """Admit one attempt under all keys, or under none. None: admitted; otherwise the seconds to wait.

    No window of `window_secs` has more attempts than a key's limit. It may refuse up to a sixtieth of the window too long.
    """

    keys: tuple[AttemptKey, ...]
    window_secs: int
    now_ms: int

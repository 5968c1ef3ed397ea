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
    A key that an operator has blocked admits nothing until the block ends.
    """

    keys: tuple[AttemptKey, ...]
    window_secs: int
    now_ms: int


class LoginBlock(msgspec.Struct, frozen=True, gc=False):
    """Logins and registrations that an operator refuses for a while: from an address, or for an account."""

    kind: str  # address, account
    name: str  # the limit key of the address, or the key of the user name
    ends_ms: int
    digest: bytes  # of the limit that has nothing left until then


class BlockLogins(StorageEffect[bool], frozen=True):
    """Refuse logins from now on, on every replica; a repeat sets another end. False: `most` blocks exist already."""

    block: LoginBlock
    most: int
    now_ms: int


class UnblockLogins(StorageEffect[bool], frozen=True):
    """End a block. False: there is none."""

    digest: bytes
    now_ms: int


class ListLoginBlocks(StorageEffect[list[LoginBlock]], frozen=True):
    """List the blocks that have not ended, the next to end first."""

    now_ms: int

"""Effects that count attempts to log in, register and refresh, across all replicas."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.base import StorageEffect


class AttemptKey(msgspec.Struct, frozen=True, gc=False):
    """The key of one limit. `digest`: BLAKE3 of its text, so that the store contains neither addresses nor names."""

    digest: bytes
    limit: int


class CountAttempt(StorageEffect[float | None], frozen=True):
    """Admit one attempt under all keys, or under none. None: admitted; otherwise the seconds to wait.

    No window of `window_secs` has more attempts than a key's limit. The wait may be too long by up to a sixtieth of the window.
    A key that an operator has blocked admits nothing until the block ends.
    """

    keys: tuple[AttemptKey, ...]
    window_secs: int
    now_ms: int


class LoginBlock(msgspec.Struct, frozen=True, gc=False):
    """A temporary block of logins and registrations by an operator: from an address, or for an account."""

    kind: str  # address, account
    name: str  # the limit key of the address, or the key of the user name
    ends_ms: int
    digest: bytes  # key of the limit that admits nothing until then


class BlockLogins(StorageEffect[bool], frozen=True):
    """Block logins from now on, on every replica. A repeat changes the end. False: there are already `most` blocks."""

    block: LoginBlock
    most: int
    now_ms: int


class UnblockLogins(StorageEffect[bool], frozen=True):
    """End a block. False: no such block."""

    digest: bytes
    now_ms: int


class ListLoginBlocks(StorageEffect[list[LoginBlock]], frozen=True):
    """List the active blocks, next to end first."""

    now_ms: int

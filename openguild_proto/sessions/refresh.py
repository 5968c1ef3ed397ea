"""Refresh families: what a presented refresh token is worth (CONTRACT A8, D-26, D-27)."""

from __future__ import annotations

from enum import Enum

from blake3 import blake3

from openguild_proto.canonical.keys import decode_unpadded, encode_unpadded

TOKEN_BYTES = 16
_CONTEXT = "openguild 2026 refresh token at rest"


class Rotation(Enum):
    """What the store does with a known refresh token."""

    ROTATE = "rotate"  # the current token: exchange it
    GRACE = "grace"  # the token before it, soon enough: the answer to its rotation may have been lost
    REUSED = "reused"  # any other token of the family: somebody has a copy, the family ends
    DEAD = "dead"  # the family is revoked or expired


def decide_rotation(
    *,
    presented: bytes,
    current: bytes,
    previous: bytes | None,
    rotated_at_ms: int | None,
    revoked: bool,
    expires_at_ms: int,
    now_ms: int,
    grace_ms: int,
) -> Rotation:
    """Decide over hashes of tokens of one family. Both stores call this while they hold the family.

    `previous`: the token that the last rotation replaced, at `rotated_at_ms`. After GRACE the store makes the token it
    replaces the previous one, so a token is accepted at most once more.
    """
    if revoked or expires_at_ms <= now_ms:
        return Rotation.DEAD
    if presented == current:
        return Rotation.ROTATE
    if presented == previous and rotated_at_ms is not None and now_ms - rotated_at_ms <= grace_ms:
        return Rotation.GRACE
    return Rotation.REUSED


def new_refresh_token(random16: bytes) -> str:
    """16 random bytes as 22 characters of base64url (CONTRACT 5.2)."""
    if len(random16) != TOKEN_BYTES:
        raise ValueError("a refresh token is made of 16 bytes")
    return encode_unpadded(random16)


def hash_refresh_token(token: str) -> bytes | None:
    """What is stored in place of the token (D-25): 32 bytes. None: this text cannot be a token."""
    try:
        raw = decode_unpadded(token)
    except ValueError:
        return None
    if len(raw) != TOKEN_BYTES:
        return None
    return blake3(raw, derive_key_context=_CONTEXT).digest()

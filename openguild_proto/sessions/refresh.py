"""Refresh families: what a presented refresh token is worth, and which one follows it (PROTOCOL 4.6).

A rotation answers with the successor of the token it was shown, which only the server can compute, and always the
same one on every replica, whatever key that signs with: it is derived from the token and a random secret of its
family, which is kept in the store. Who reads the store has no token, and who has a token has no secret. So a client
that lost the answer, or that asks from several tabs at once, gets one and the same new token however often it asks
within the grace, and whichever of the answers it keeps is good.

A thief who shows a stolen token within the grace gets that same successor, which is what they would have got by being
first. There is still one living token in the family, now in two hands: whoever uses it second, after the grace, is
noticed and the family ends. Asking again does not make the grace longer.
"""

from __future__ import annotations

from enum import Enum

from blake3 import blake3

from openguild_proto.canonical.keys import decode_unpadded, encode_unpadded
from openguild_proto.canonical.signing import SigningKey

TOKEN_BYTES = 16
TOKEN_CHARS = 22  # of them in base64url
SECRET_BYTES = 32
_CONTEXT = "openguild 2026 refresh token at rest"
_SUCCESSOR = "openguild 2026 refresh token that follows another"


class Rotation(Enum):
    """What the store does with a known refresh token."""

    ROTATE = "rotate"  # the current token: exchange it
    GRACE = "grace"  # the token before it, soon enough: the answer to its rotation may have been lost; answer again
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

    `previous`: the token that the last rotation replaced, at `rotated_at_ms`. GRACE changes neither of them, so it is
    answered any number of times, and ends `grace_ms` after the rotation.
    """
    if revoked or expires_at_ms <= now_ms:
        return Rotation.DEAD
    if presented == current:
        return Rotation.ROTATE
    if presented == previous and rotated_at_ms is not None and now_ms - rotated_at_ms <= grace_ms:
        return Rotation.GRACE
    return Rotation.REUSED


def new_refresh_token(random16: bytes) -> str:
    """16 random bytes as 22 characters of base64url (PROTOCOL 4.6.1)."""
    if len(random16) != TOKEN_BYTES:
        raise ValueError("a refresh token is made of 16 bytes")
    return encode_unpadded(random16)


def next_refresh_token(token: str, secret: bytes) -> str:
    """The successor of `token`, for who knows its family's secret. Raises ValueError for what cannot be a token."""
    key = blake3(secret, derive_key_context=_SUCCESSOR).digest()
    return new_refresh_token(blake3(decode_unpadded(token), key=key).digest(TOKEN_BYTES))


def fallback_secret(signing: SigningKey) -> bytes:
    """In place of a secret, for families of a release that gave them none: replicas must sign with one key."""
    return signing.sign(_SUCCESSOR.encode())


def hash_refresh_token(token: str) -> bytes | None:
    """What is stored in place of the token (PROTOCOL 4.6.1): 32 bytes. None: this text cannot be a token."""
    if len(token) != TOKEN_CHARS:
        return None
    try:
        raw = decode_unpadded(token)
    except ValueError:
        return None
    return blake3(raw, derive_key_context=_CONTEXT).digest()

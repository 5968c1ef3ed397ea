"""Refresh token families: the decision on a presented token, and its successor (PROTOCOL 4.6).

A rotation returns the successor of the presented token. It is derived from the token and a random secret of its family in the
store, so every replica returns the same successor. Somebody who can read the store has no token, and a client has no secret. A
client that lost the response, or that refreshes in several tabs at once, gets the same new token each time within the grace
period.

A thief who presents a stolen token within the grace period also gets this successor. The family still has one valid token,
which two parties now hold: the second use after the grace period is detected as reuse and ends the family. Repeated
requests do not extend the grace period.
"""

from __future__ import annotations

from enum import Enum

from blake3 import blake3

from openguild_proto.canonical.keys import decode_unpadded, encode_unpadded

TOKEN_BYTES = 16
TOKEN_CHARS = 22  # in base64url
SECRET_BYTES = 32
_CONTEXT = "openguild 2026 refresh token at rest"
_SUCCESSOR = "openguild 2026 refresh token that follows another"


class Rotation(Enum):
    """The decision on a known refresh token."""

    ROTATE = "rotate"  # the current token: replace it
    GRACE = "grace"  # the previous token within the grace period: return the successor again
    REUSED = "reused"  # any other token of the family: somebody has a copy, so end the family
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
    """Decide on a token by its hash. Both stores call this with the family locked.

    `previous`: the token that the last rotation replaced, at `rotated_at_ms`. GRACE changes neither token, so it may happen
    any number of times until `grace_ms` after the rotation.
    """
    if revoked or expires_at_ms <= now_ms:
        return Rotation.DEAD
    if presented == current:
        return Rotation.ROTATE
    if presented == previous and rotated_at_ms is not None and now_ms - rotated_at_ms <= grace_ms:
        return Rotation.GRACE
    return Rotation.REUSED


def new_refresh_token(random16: bytes) -> str:
    """Return 16 random bytes as 22 characters of base64url (PROTOCOL 4.6.1)."""
    if len(random16) != TOKEN_BYTES:
        raise ValueError("a refresh token has 16 bytes")
    return encode_unpadded(random16)


def next_refresh_token(token: str, secret: bytes) -> str:
    """Return the successor of `token`, derived with the secret of its family. Raises ValueError for an invalid token."""
    key = blake3(secret, derive_key_context=_SUCCESSOR).digest()
    return new_refresh_token(blake3(decode_unpadded(token), key=key).digest(TOKEN_BYTES))


def hash_refresh_token(token: str) -> bytes | None:
    """Return the 32 bytes stored instead of the token (PROTOCOL 4.6.1), or None for an invalid token."""
    if len(token) != TOKEN_CHARS:
        return None
    try:
        raw = decode_unpadded(token)
    except ValueError:
        return None
    return blake3(raw, derive_key_context=_CONTEXT).digest()

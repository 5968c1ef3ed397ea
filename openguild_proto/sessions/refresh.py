"""Refresh families: what a presented refresh token is worth (CONTRACT A8, D-26, D-27)."""

from __future__ import annotations

from enum import Enum


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

"""Retention: deletes expired rows (PROTOCOL 11.6.3)."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect


class PruneExpired(StorageEffect[bool], frozen=True):
    """Delete one small batch. True: there may be more.

    Each call examines `limit` users from the id `from_user` on, and deletes their sessions, refresh tokens and families
    that have expired by `now_ms`. Of control records, login attempts and kept answers it deletes at most `limit` that are
    older than their bounds.
    """

    now_ms: int
    from_user: str
    control_before_ms: int
    attempts_before_ms: int
    answers_before_ms: int
    limit: int


class PurgeDeleted(StorageEffect[bool], frozen=True):
    """Delete about `limit` rows of what is left of large logs that were deleted. False: nothing is left, or others are at it."""

    limit: int

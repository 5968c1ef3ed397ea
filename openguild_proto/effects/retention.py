"""Retention: deletes expired rows (PROTOCOL 11.6.3)."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect


class PruneExpired(StorageEffect[bool], frozen=True):
    """Delete one small batch. True: there may be more.

    Each call examines `limit` users from the id `from_user` on, and deletes their expired sessions, refresh tokens and
    families, as of `now_ms`. Of control records, login attempts and stored responses it deletes at most `limit` older than
    their bounds.
    """

    now_ms: int
    from_user: str
    control_before_ms: int
    attempts_before_ms: int
    answers_before_ms: int
    limit: int


class PurgeDeleted(StorageEffect[bool], frozen=True):
    """Delete about `limit` remaining rows of large deleted logs. False: none are left, or another process deletes them."""

    limit: int

"""What the store may forget (PROTOCOL 11.6.3)."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect


class PruneExpired(StorageEffect[bool], frozen=True):
    """One small batch. True: there may be more, ask again.

    Users have no order in which they expire: each call looks at `limit` of them, from the id `from_user` on, and drops
    their sessions, refresh tokens and families that have expired by `now_ms`. Of the control log and the login attempts
    the oldest `limit` records go that are older than their bounds.
    """

    now_ms: int
    from_user: str
    control_before_ms: int
    attempts_before_ms: int
    limit: int

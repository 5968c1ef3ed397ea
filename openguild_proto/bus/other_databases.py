"""Detects replicas of another database under the same `server_name`. Their messages are ignored and the operator is warned.

They are another deployment, or a replica with a wrong database URL. Replicas of one database that has just got a new id learn
it within seconds (PROTOCOL 10.2.7) and are not reported.
"""

from __future__ import annotations

from dataclasses import dataclass

SETTLE_SECS = 10.0  # four tail checks, in which replicas read the id
FORGET_SECS = 30.0  # ten probes
MAX_OTHERS = 16  # databases that are distinguished


@dataclass
class _Other:
    first: float
    last: float
    is_told: bool = False


class OtherDatabases:
    """The other databases. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._others: dict[str, _Other] = {}

    def record(self, database: str, now: float) -> bool:
        """Record a message of another database. Return whether to warn the operator: once, until it falls silent."""
        self._forget(now)
        if database not in self._others and len(self._others) >= MAX_OTHERS:
            return False
        other = self._others.setdefault(database, _Other(now, now))
        other.last = now
        if other.is_told or now - other.first < SETTLE_SECS:
            return False
        other.is_told = True
        return True

    def count(self, now: float) -> int:
        """Return the number of databases that the operator was warned of."""
        self._forget(now)
        return sum(other.is_told for other in self._others.values())

    def _forget(self, now: float) -> None:
        self._others = {name: other for name, other in self._others.items() if now - other.last < FORGET_SECS}

"""Selects the standby for a read, how long the read waits for it, and when a standby is left out.

A read sees everything that was acknowledged before it began, by any replica. So it first asks the primary for its WAL
position, and then waits for a bounded time until the standby has reached it. Concurrent reads share both queries. If no standby
can serve a read, the primary does.
"""

from __future__ import annotations

from enum import Enum

from openguild_proto.records import Record

FIRST_PAUSE_SECS = 0.001  # between two queries to a standby that is behind; then doubled
LONGEST_PAUSE_SECS = 0.016


class StandbyState(Enum):
    """The known state of a standby. Only a SERVING one gets reads."""

    SERVING = "it was up to date with the primary"
    BEHIND = "it did not catch up with the primary in time"
    FAILED = "it could not be reached, or a read failed"
    APART = "it does not replicate the primary's current timeline"


class WalPosition(Record, frozen=True):
    """A position in a server's write-ahead log.

    `lineage`: the cluster, its timeline and the database. For a standby the first two are those that the primary recorded for
    the epochs of logs. None: not reported.
    """

    lineage: str | None
    position: int  # bytes


class StandbyStats(Record, frozen=True):
    """Statistics of one standby. `state`: None before the first check.

    `reads`: answered by it since the start. `missed`: assigned to it since the start, but answered by the primary.
    """

    state: StandbyState | None
    reads: int
    missed: int

    @property
    def serving(self) -> bool:
        """Whether it gets reads."""
        return self.state is StandbyState.SERVING


def compare(primary: WalPosition, standby: WalPosition) -> StandbyState:
    """Return whether the standby has everything that the primary had.

    After a promotion no standby serves until the new lineage is recorded and replicated to it, whatever its position. A standby
    that still follows the former primary may be further ahead, with other content.
    """
    if primary.lineage is None or primary.lineage != standby.lineage:
        return StandbyState.APART
    return StandbyState.SERVING if standby.position >= primary.position else StandbyState.BEHIND


def next_pause(waited_secs: float, former_secs: float, limit_secs: float) -> float | None:
    """Return how long to wait before asking a standby that is behind again, or None if the time is up."""
    left = limit_secs - waited_secs
    if left <= 0:
        return None
    return min(left, LONGEST_PAUSE_SECS, max(FIRST_PAUSE_SECS, 2 * former_secs))


class Standbys:
    """The standbys of a primary, by number. They take turns; one that does not serve is left out until a check succeeds."""

    def __init__(self, count: int) -> None:
        self.states: list[StandbyState | None] = [None] * count  # None until the first check
        self._next = 0

    def choose(self) -> int | None:
        """Return the standby for the next read, or None for the primary."""
        count = len(self.states)
        for step in range(count):
            number = (self._next + step) % count
            if self.states[number] is StandbyState.SERVING:
                self._next = number + 1
                return number
        return None

    def found(self, number: int, state: StandbyState) -> bool:
        """Record the result of a check or a read. Return whether the state changed."""
        former, self.states[number] = self.states[number], state
        return former is not state

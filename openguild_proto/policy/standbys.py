"""Chooses the standby that serves a read, how long the read waits for it, and when a standby is left out.

A read sees every write that any replica acknowledged before the read started. So a read first asks the primary for its position
in the write-ahead log, and then waits for a bounded time until the standby has reached it. Reads that wait together share both
queries. A read that no standby serves goes to the primary.
"""

from __future__ import annotations

from enum import Enum

from openguild_proto.records import Record

FIRST_PAUSE_SECS = 0.001  # before a standby that is behind is asked again; doubles each time
LONGEST_PAUSE_SECS = 0.016


class StandbyState(Enum):
    """The known state of a standby. Only a SERVING standby gets reads."""

    SERVING = "it had what the primary had"
    BEHIND = "it did not have it in time"
    FAILED = "it could not be asked, or failed a read"
    APART = "it follows another history than the primary's, or none"


class WalPlace(Record, frozen=True):
    """A position in a server's write-ahead log. `lineage`: the cluster, its timeline, and the database; of a standby as the
    primary recorded the first two for the epochs of logs; None: it does not say."""

    lineage: str | None
    position: int  # bytes


class StandbyStats(Record, frozen=True):
    """Statistics of one standby. `state` is None before the first check. `reads`: reads that it has answered since the start.
    `missed`: reads that it was chosen for but the primary answered."""

    state: StandbyState | None
    reads: int
    missed: int

    @property
    def serving(self) -> bool:
        """Whether it gets reads."""
        return self.state is StandbyState.SERVING


def compare(primary: WalPlace, standby: WalPlace) -> StandbyState:
    """Return whether the standby has reached the primary's position.

    After a promotion, a standby serves only when the new lineage has been recorded and has reached it, whatever its position.
    A standby that still follows the former primary may be further ahead, but with other content.
    """
    if primary.lineage is None or primary.lineage != standby.lineage:
        return StandbyState.APART
    return StandbyState.SERVING if standby.position >= primary.position else StandbyState.BEHIND


def next_pause(waited_secs: float, former_secs: float, limit_secs: float) -> float | None:
    """Return the seconds before a standby that is behind is asked again, or None if the read should wait no longer."""
    left = limit_secs - waited_secs
    if left <= 0:
        return None
    return min(left, LONGEST_PAUSE_SECS, max(FIRST_PAUSE_SECS, 2 * former_secs))


class Standbys:
    """The standbys of a primary, by number. They take turns. One that does not serve is skipped until a check succeeds."""

    def __init__(self, count: int) -> None:
        self.states: list[StandbyState | None] = [None] * count  # None before the first check
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
        """Note the state that a check or a read found. Return whether it has changed."""
        former, self.states[number] = self.states[number], state
        return former is not state

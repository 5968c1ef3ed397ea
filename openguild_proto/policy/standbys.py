"""Chooses the standby that serves a read, how long the read waits for it, and when a standby is left out.

A read sees whatever was acknowledged before it began, by whichever replica. So a read first asks the primary for the place that
its log of changes has reached, and then waits until the standby has it, for a bounded time. Reads that wait together share
both questions. A read that no standby serves goes to the primary.
"""

from __future__ import annotations

from enum import Enum

from openguild_proto.records import Record

FIRST_PAUSE_SECS = 0.001  # between two questions to a standby that is behind; then twice as long
LONGEST_PAUSE_SECS = 0.016


class StandbyState(Enum):
    """The known state of a standby. Only one that serves is given reads."""

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
    """Of one standby. `state` is None before the first look. `reads` and `missed`: since the start, reads that it has answered,
    and those that it was to answer and the primary had to."""

    state: StandbyState | None
    reads: int
    missed: int

    @property
    def serving(self) -> bool:
        """Whether reads go to it."""
        return self.state is StandbyState.SERVING


def compare(primary: WalPlace, standby: WalPlace) -> StandbyState:
    """Return whether the standby has what the primary had.

    After a promotion none serves until the new lineage is recorded and has come to it, whatever its position: one that still
    follows the former primary may be further, with other content.
    """
    if primary.lineage is None or primary.lineage != standby.lineage:
        return StandbyState.APART
    return StandbyState.SERVING if standby.position >= primary.position else StandbyState.BEHIND


def next_pause(waited_secs: float, former_secs: float, limit_secs: float) -> float | None:
    """Return for how long to wait before a standby that is behind is asked again; None: it has had its time."""
    left = limit_secs - waited_secs
    if left <= 0:
        return None
    return min(left, LONGEST_PAUSE_SECS, max(FIRST_PAUSE_SECS, 2 * former_secs))


class Standbys:
    """The standbys of a primary, by number. They take turns; one that does not serve is left out until a look finds it good."""

    def __init__(self, count: int) -> None:
        self.states: list[StandbyState | None] = [None] * count  # None until the first look
        self._next = 0

    def choose(self) -> int | None:
        """Return the one that serves the next read; None: the primary must."""
        count = len(self.states)
        for step in range(count):
            number = (self._next + step) % count
            if self.states[number] is StandbyState.SERVING:
                self._next = number + 1
                return number
        return None

    def found(self, number: int, state: StandbyState) -> bool:
        """Note what a look or a read found. Return whether that is news."""
        former, self.states[number] = self.states[number], state
        return former is not state

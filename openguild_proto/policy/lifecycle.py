"""The life of a serving process: it starts, serves, and drains (PROTOCOL 11.1, 12)."""

from __future__ import annotations

from enum import Enum, auto


class Phase(Enum):
    """The phases of the process."""

    STARTING = auto()  # the store is waited for, and revocations are not heard of yet
    SERVING = auto()
    DRAINING_UNSTARTED = auto()  # it was told to end before it had started
    DRAINING = auto()


class Input(Enum):
    """The inputs that change the phase."""

    STARTED = auto()
    DRAIN = auto()


_NEXT = {
    (Phase.STARTING, Input.STARTED): Phase.SERVING,
    (Phase.STARTING, Input.DRAIN): Phase.DRAINING_UNSTARTED,
    (Phase.SERVING, Input.DRAIN): Phase.DRAINING,
    (Phase.DRAINING_UNSTARTED, Input.STARTED): Phase.DRAINING,
}
"""Any other input changes nothing."""


class Lifecycle:
    """Give one object to every part that asks for the phase; the owner of the process calls `started` and `drain`."""

    __slots__ = ("phase",)

    def __init__(self) -> None:
        self.phase = Phase.STARTING

    def started(self) -> None:
        """Note that this replica receives revocations: from now on it may answer requests that need storage."""
        self._take(Input.STARTED)

    def drain(self) -> None:
        """Note that the process is about to end."""
        self._take(Input.DRAIN)

    @property
    def has_started(self) -> bool:
        """Whether requests that need storage may be answered. This stays true while the process drains."""
        return self.phase is Phase.SERVING or self.phase is Phase.DRAINING

    @property
    def is_draining(self) -> bool:
        """Whether the process is about to end."""
        return self.phase is Phase.DRAINING or self.phase is Phase.DRAINING_UNSTARTED

    def _take(self, given: Input) -> None:
        self.phase = _NEXT.get((self.phase, given), self.phase)

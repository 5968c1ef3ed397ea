"""The lifecycle of a serving process: starting, serving, draining (PROTOCOL 11.1, 12)."""

from __future__ import annotations

from enum import Enum, auto


class Phase(Enum):
    """The phases of the process."""

    STARTING = auto()  # waits for the store, and does not receive revocations yet
    SERVING = auto()
    DRAINING_UNSTARTED = auto()  # told to stop before it had started
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
"""All other inputs change nothing."""


class Lifecycle:
    """The current phase. Share one object between all parts; the owner of the process calls `started` and `drain`."""

    __slots__ = ("phase",)

    def __init__(self) -> None:
        self.phase = Phase.STARTING

    def started(self) -> None:
        """Record that this replica receives revocations. From here on requests that need storage may be answered."""
        self._take(Input.STARTED)

    def drain(self) -> None:
        """Record that the process is about to stop."""
        self._take(Input.DRAIN)

    @property
    def has_started(self) -> bool:
        """Whether requests that need storage may be answered. Stays true while the process drains."""
        return self.phase is Phase.SERVING or self.phase is Phase.DRAINING

    @property
    def is_draining(self) -> bool:
        """Whether the process is about to stop."""
        return self.phase is Phase.DRAINING or self.phase is Phase.DRAINING_UNSTARTED

    def _take(self, given: Input) -> None:
        self.phase = _NEXT.get((self.phase, given), self.phase)

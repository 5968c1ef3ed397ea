"""Faults of a bus that last, and which of them the log shows now."""

from __future__ import annotations

from typing import NamedTuple

from openguild_proto.policy.active_faults import ActiveFaults
from openguild_proto.policy.log_throttle import LogThrottle


class Fault(NamedTuple):
    """What the operator is told. `kind`: for the metrics. `cause` continues a sentence that begins with the bus's name."""

    kind: str
    cause: str
    mend: str


class Problems:
    """`active` holds errors that the server reported without ending the connection."""

    def __init__(self, title: str) -> None:
        self.active: ActiveFaults[Fault] = ActiveFaults()
        self._title = title
        self._log_throttle = LogThrottle()

    def line(self, fault: Fault, now: float, before: str = "") -> tuple[str, int] | None:
        """Return the line of the log and how often it was left out since the last one; None: not now."""
        repeated = self._log_throttle.due(fault.cause, now)
        return None if repeated is None else (f"{before}{self._title} {fault.cause}: {fault.mend}", repeated)

    def invalid_message(self, now: float) -> int | None:
        """Return how often such a line was left out since the last one; None: not now."""
        return self._log_throttle.due("message", now)

    @property
    def denied(self) -> int:
        """How many kinds of subjects are denied."""
        return sum(fault.kind == "denied" for fault in self.active.values())

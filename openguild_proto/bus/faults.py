"""Lasting faults of a bus, and which of them to log now."""

from __future__ import annotations

from typing import NamedTuple

from openguild_proto.policy.active_faults import ActiveFaults
from openguild_proto.policy.limit_sharing import SILENT_SECS
from openguild_proto.policy.log_throttle import LogThrottle


class Fault(NamedTuple):
    """A fault as shown to the operator. `kind`: for the metrics. `cause`: continues a sentence that begins with the bus's name."""

    kind: str
    cause: str
    mend: str


class Problems:
    """The current faults.

    `active`: errors that the server reported without ending the connection. `last_end`: why the last connection ended.
    `silent`: the fault of a server that has not answered for SILENT_SECS. Times are monotonic seconds.
    """

    def __init__(self, title: str, last_end: Fault, silent: Fault) -> None:
        self.active: ActiveFaults[Fault] = ActiveFaults()
        self.last_end = last_end
        self._silent = silent
        self._answered_at = float("-inf")
        self._title = title
        self._log_throttle = LogThrottle()

    def line(self, fault: Fault, now: float, before: str = "") -> tuple[str, int] | None:
        """Return the log line and how often it was suppressed since the last one, or None to suppress it."""
        repeated = self._log_throttle.due(fault.cause, now)
        return None if repeated is None else (f"{before}{self._title} {fault.cause}: {fault.mend}", repeated)

    def invalid_message(self, now: float) -> int | None:
        """Return how often the line about an invalid message was suppressed since the last one, or None to suppress it."""
        return self._log_throttle.due("message", now)

    def ended(self, fault: Fault) -> None:
        """Record why the connection ended or could not be made."""
        self.last_end = fault

    def answered(self, now: float) -> None:
        """Record that the server has received everything sent before."""
        self._answered_at = now

    def is_silent(self, now: float) -> bool:
        """Return whether the server has not answered for SILENT_SECS."""
        return now - self._answered_at >= SILENT_SECS

    def now(self, now: float, *, connected: bool) -> Fault | None:
        """Return why some or all messages are not delivered, or None if all are."""
        if not connected:
            return self.last_end
        return self._silent if self.is_silent(now) else self.active.oldest

    def is_denied(self, *keys: str) -> bool:
        """Return whether one of these is denied: an action and a kind of subject, such as "publish limits"."""
        return not self.active.keys().isdisjoint(keys)

    @property
    def denied(self) -> int:
        """The number of denied actions on kinds of subjects."""
        return sum(fault.kind == "denied" for fault in self.active.values())

"""The delay before the next attempt to connect."""

from __future__ import annotations

from collections.abc import Callable

from openguild_proto.bus.faults import Fault
from openguild_proto.policy.backoff import Backoff

MAX_UNREACHABLE_WAIT_SECS = 2.0  # between attempts that reach no server, which are cheap
MAX_RECONNECT_WAIT_SECS = 15.0  # after a server responded: each reconnect costs two database queries
LEAST_WAIT_SECS = 0.05
CHEAP = frozenset({"unreachable", "silent"})  # kinds of faults of attempts that reach no server


class Reconnects:
    """Delays with full jitter. A connection that outlasts the longest delay resets them. `jitter()` returns numbers in [0, 1)."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self.failed_attempts = 0  # since the last connection
        self._unreachable = Backoff(jitter, base_secs=0.1, max_secs=MAX_UNREACHABLE_WAIT_SECS)
        self._reached = Backoff(jitter, base_secs=0.5, max_secs=MAX_RECONNECT_WAIT_SECS)

    def failed(self, fault: Fault) -> float:
        """Return the seconds to wait after a failed attempt."""
        self.failed_attempts += 1
        backoff = self._unreachable if fault.kind in CHEAP else self._reached
        return backoff.next_delay(LEAST_WAIT_SECS)

    def connected(self) -> None:
        """Record a successful attempt."""
        self.failed_attempts = 0
        self._unreachable.reset()

    def ended(self, lasted_secs: float) -> float:
        """Return the seconds to wait after a connection that lasted `lasted_secs`."""
        self._reached.connection_ended(lasted_secs)
        return self._reached.next_delay(LEAST_WAIT_SECS)

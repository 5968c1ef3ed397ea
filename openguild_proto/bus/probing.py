"""Probes of a NATS server's permissions: which pings probe, which subscriptions are repeated, and the result.

NATS reports a denied publish or subscription asynchronously, but before its answer to the next ping. So a round publishes to
each kind of subject, repeats the denied subscriptions, and ends with the answer to a ping.
"""

from __future__ import annotations

from typing import NamedTuple

from openguild_proto.bus.faults import Fault
from openguild_proto.bus.nats import SUBSCRIPTIONS
from openguild_proto.bus.topics import Topic
from openguild_proto.policy.active_faults import ActiveFaults

PINGS_PER_PROBE = 3  # every third ping also probes which subjects the server permits
PINGS_PER_RESUBSCRIBE = 30  # repeats all subscriptions after one was refused
KINDS = (*(topic.value for topic in Topic), "channel")  # of subjects


class ProbeResult(NamedTuple):
    """The result of a round. `permitted`: keys that are permitted again. `has_missed`: messages may have been lost."""

    permitted: list[str]
    resubscribe_all: bool
    has_missed: bool


class Probing:
    """The rounds of one connection. Call `next_ping` before each ping, and `end` after the answer to a ping that probes."""

    def __init__(self, active: ActiveFaults[Fault]) -> None:
        self._active = active
        self._pings = 0

    def next_ping(self) -> bool:
        """Count a ping. Return whether it probes; then a round has begun."""
        self._pings += 1
        if self._pings % PINGS_PER_PROBE:
            return False
        self._active.begin_round()
        return True

    @property
    def kinds_to_resubscribe(self) -> list[str]:
        """The kinds of subjects whose subscription is denied."""
        return [kind for kind in KINDS if f"subscribe {kind}" in self._active]

    def resubscribes_all(self) -> bool:
        """Return whether this round repeats all subscriptions. If not, an earlier refusal stays active."""
        if "subscriptions" not in self._active:
            return False
        if self._pings % PINGS_PER_RESUBSCRIBE == 0:
            return True
        self._active.report("subscriptions", SUBSCRIPTIONS)
        return False

    def end(self) -> ProbeResult:
        """End the round."""
        permitted = [key for key in self._active.end_round() if key.startswith(("publish", "subscri"))]
        return ProbeResult(
            permitted, "subscribe channel" in permitted, any(key.startswith("subscri") for key in permitted)
        )

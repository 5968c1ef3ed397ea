"""Message limits shared by all replicas: each publishes its admissions.

Every quarter of a second a replica publishes its new admissions, and the others count them as their own. Until then the
replicas together may admit too much, by what they admit in that interval. Among more than CROWD replicas this interval and all
times below are longer by the factor replicas / CROWD, so that each replica receives as many messages as among CROWD.

While the bus is down each replica applies its share: the limit divided by the number of replicas. The bus counts as down
SILENT_SECS after its last response, long before the connection times out, so the limit does not fail open during an
outage. A replica expires after FORGOTTEN_SECS without a message while the bus is up.

A replica that starts during an outage knows no others, so it divides by `at_least`. A bus may also respond without
delivering the messages of others. If fewer than `at_least` replicas were heard in the last HEARD_SECS, the limit is
divided by the number of groups of the heard size that make up `at_least`.
"""

from __future__ import annotations

import msgspec

from openguild_proto.limits import MAX_REPLICAS
from openguild_proto.policy.ratelimit import SlidingWindow

PUBLISH_SECS = 0.25
HEARTBEAT_SECS = 1.0
SILENT_SECS = 3.0
HEARD_SECS = 3.0  # three heartbeats, in which every running replica is heard
FORGOTTEN_SECS = 10.0
CROWD = 16  # replicas; each then receives at most 64 messages a second


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """One replica's admissions since its last message: by window name, then by key."""

    replica: str
    counts: dict[str, dict[str, int]]


_decoder = msgspec.json.Decoder(Admitted)


class LimitSharing:
    """Shares the admissions of `windows`, by name; the names are the same on every replica.

    `replica`: a unique id. `at_least`: the configured number of replicas.
    """

    def __init__(self, replica: str, windows: dict[str, SlidingWindow], *, at_least: int = 1) -> None:
        self._replica = replica
        self._windows = windows
        self._at_least = at_least
        self._received_at: dict[str, float] = {}  # replica -> monotonic time of its last message
        self._told_at = float("-inf")
        self._answered_at = float("-inf")
        self._carries_since: float | None = None  # None: the bus is down
        self.divisor = 1  # of the limits, since the last tick
        for window in windows.values():
            window.fresh = {}

    def answered(self, now: float) -> None:
        """Record a response of the bus: earlier messages have left this replica. Call it about every HEARTBEAT_SECS."""
        self._answered_at = now

    def tick(self, now: float, *, connected: bool, heard: bool = True) -> bytes | None:
        """Return the message to publish, or None. Call it every PUBLISH_SECS.

        `connected`: the bus accepts messages. `heard`: as far as it reports, it delivers messages in both directions.
        """
        if not connected or not heard or now - self._answered_at >= SILENT_SECS:
            self._carries_since = None
        elif self._carries_since is None:
            self._carries_since = now
        since = self._carries_since
        if since is not None:
            kept_secs = FORGOTTEN_SECS * self._stretch
            self._received_at = {name: at for name, at in self._received_at.items() if now - max(at, since) < kept_secs}
        self.divisor = self._parts(now)
        for window in self._windows.values():
            window.divisor = self.divisor
        if connected and self._stretch > 1 and now - self._told_at < PUBLISH_SECS * self._stretch:
            return None  # published with later admissions
        counts = {name: window.take_fresh() for name, window in self._windows.items()}
        if not connected or (not any(counts.values()) and now - self._told_at < HEARTBEAT_SECS * self._stretch):
            return None
        self._told_at = now
        return msgspec.json.encode(Admitted(self._replica, {name: found for name, found in counts.items() if found}))

    def _parts(self, now: float) -> int:
        if self._carries_since is None:
            return max(self._at_least, self.replicas)
        heard_secs = HEARD_SECS * self._stretch
        return -(-self._at_least // (1 + sum(now - at < heard_secs for at in self._received_at.values())))

    def probe(self) -> bytes:
        """Return an empty message, to test whether the bus permits publishing."""
        return msgspec.json.encode(Admitted(self._replica, {}))

    def received(self, payload: bytes, now: float) -> None:
        """Count the admissions of another replica's message. Raises msgspec.DecodeError."""
        message = _decoder.decode(payload)
        if message.replica == self._replica or (
            message.replica not in self._received_at and len(self._received_at) >= MAX_REPLICAS
        ):
            return
        self._received_at[message.replica] = now
        for name, counts in message.counts.items():
            window = self._windows.get(name)
            if window is not None:
                for key, count in counts.items():
                    window.absorb(key, count, now)

    @property
    def _stretch(self) -> float:
        return max(1.0, self.replicas / CROWD)

    @property
    def replicas(self) -> int:
        """The number of replicas known to be alive, including this one."""
        return 1 + len(self._received_at)

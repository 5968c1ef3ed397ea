"""Message limits that hold for all replicas together: each tells the others what it has admitted.

Every quarter of a second a replica publishes its admissions since the last time; the others count them as if they
had been their own. Between two messages the replicas together may admit up to that interval's worth too much.
While the wire is away nobody hears: each replica then allows its share, the limit divided by how many replicas there
were. The wire counts as away SILENT_SECS after its last answer, long before a dead connection is given up: until then
each replica may admit what it has not heard of, and from then on the limit does not fail open, however long it lasts.
A replica is forgotten when the wire has carried for FORGOTTEN_SECS without a word of it.

The exception: who starts while the wire is away knows of nobody. `at_least` is the number that it divides by.
A wire may also carry this replica's questions and not the others' words. Where fewer than `at_least` were heard in the
last HEARD_SECS, those that were not are taken to admit unheard: the limit is divided among as many parts as there are
groups of the size that was heard.
"""

from __future__ import annotations

import msgspec

from openguild_proto.limits import MAX_REPLICAS
from openguild_proto.policy.ratelimit import SlidingWindow

PUBLISH_SECS = 0.25
HEARTBEAT_SECS = 1.0
SILENT_SECS = 3.0
HEARD_SECS = 3.0  # three heartbeats: whoever is there has been heard by then
FORGOTTEN_SECS = 10.0


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """One replica's admissions since its last message: window name, then key to how many."""

    replica: str
    counts: dict[str, dict[str, int]]


_decoder = msgspec.json.Decoder(Admitted)


class LimitSharing:
    """`windows` by name, the same names on every replica. `replica`: an id that no other replica has.

    `at_least`: replicas that there are, whoever was heard.
    """

    def __init__(self, replica: str, windows: dict[str, SlidingWindow], *, at_least: int = 1) -> None:
        self._replica = replica
        self._windows = windows
        self._at_least = at_least
        self._heard: dict[str, float] = {}  # replica: when, monotonic seconds
        self._told_at = float("-inf")
        self._answered_at = float("-inf")
        self._carries_since: float | None = None  # None: the wire is away
        self.divisor = 1  # what the limits are divided by since the last tick
        for window in windows.values():
            window.fresh = {}

    def answered(self, now: float) -> None:
        """The wire has answered: what was published before has left this replica. Call it every HEARTBEAT_SECS or so."""
        self._answered_at = now

    def tick(self, now: float, *, connected: bool, heard: bool = True) -> bytes | None:
        """Call every PUBLISH_SECS: what is to be published, if anything. `connected`: there is somebody to give it to.

        `heard`: as far as the wire says, the others get what is published, and this replica what they publish.
        """
        if not connected or not heard or now - self._answered_at >= SILENT_SECS:
            self._carries_since = None
        elif self._carries_since is None:
            self._carries_since = now
        since = self._carries_since
        if since is not None:
            self._heard = {name: at for name, at in self._heard.items() if now - max(at, since) < FORGOTTEN_SECS}
        self.divisor = self._parts(now)
        for window in self._windows.values():
            window.divisor = self.divisor
        counts = {name: window.take_fresh() for name, window in self._windows.items()}
        if not connected or (not any(counts.values()) and now - self._told_at < HEARTBEAT_SECS):
            return None
        self._told_at = now
        return msgspec.json.encode(Admitted(self._replica, {name: found for name, found in counts.items() if found}))

    def _parts(self, now: float) -> int:
        if self._carries_since is None:
            return max(self._at_least, self.replicas)
        return -(-self._at_least // (1 + sum(now - at < HEARD_SECS for at in self._heard.values())))

    def probe(self) -> bytes:
        """A message that tells nothing: whether the wire takes it says whether it would take the others."""
        return msgspec.json.encode(Admitted(self._replica, {}))

    def received(self, payload: bytes, now: float) -> None:
        """Another replica's message. Raises msgspec.DecodeError for anything else."""
        message = _decoder.decode(payload)
        if message.replica == self._replica or (
            message.replica not in self._heard and len(self._heard) >= MAX_REPLICAS
        ):
            return
        self._heard[message.replica] = now
        for name, counts in message.counts.items():
            window = self._windows.get(name)
            if window is not None:
                for key, count in counts.items():
                    window.absorb(key, count, now)

    @property
    def replicas(self) -> int:
        """Known to be alive, this one included."""
        return 1 + len(self._heard)

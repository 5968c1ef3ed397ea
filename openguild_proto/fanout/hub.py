"""The hub: rings, their subscribers, the change from replay to live, depths, and slow consumers.

A ring is named by its key, a string: a channel id or a user's notification ring. docs/fan-out.md has a driver. It uses:

- commands: `open`, `publish`, `subscribe`, `replayed`, `unsubscribe`, `close`;
- the flush: `flush_plan` returns subscribers that are behind, `take` a span of whole frames, `sent` moves the cursor and
  returns the rest of a partly sent frame, `flushed` marks the ring as done, `take_lagged` returns overrun subscribers;
- bursts: `publish` returns True when the ring is half full, `stretch` enlarges it until it is flushed, `has_room` checks it;
- getters: `head`, `depth`, `depths`, `subscriber_count`, `replay_range`.

A subscriber has one cursor, `position`. While the ring does not hold `position + 1` the subscriber is *replaying*: storage
supplies the log in pages. As soon as the ring holds the next frame it is *live*. The cursor only moves forward, so no event
is lost or repeated in between.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from openguild_proto.errors import LocalProtocolError
from openguild_proto.fanout import native
from openguild_proto.fanout.ring import MAX_INT
from openguild_proto.fanout.ring import Ring as PureRing
from openguild_proto.limits import DEFAULT_CAPACITY_BYTES, DEFAULT_CAPACITY_EVENTS, STRETCHED_RINGS


class SubscriberState(Enum):
    """The state of a subscriber. It starts at REPLAYING or LIVE and ends at LAGGED or GONE."""

    REPLAYING = "replaying"  # storage must supply the next event
    LIVE = "live"  # the ring holds the next event, or will
    LAGGED = "lagged"  # overrun by the ring; unsubscribed
    GONE = "gone"  # unsubscribed


class Subscriber:
    """One reader of one ring. `owner` is the runtime's: any object with which it finds the socket."""

    __slots__ = (
        "_handle",
        "_holds",
        "_hub",
        "_is_parked",
        "_joined_head",
        "_position",
        "_slot",
        "owner",
        "ring",
        "state",
    )

    def __init__(self, hub: Hub, ring: str, position: int, head: int, owner: object, handle: int) -> None:
        self._handle = handle
        self._holds = 0
        self._hub = hub
        self._is_parked = False  # by its owner
        self._position = position
        self._joined_head = head
        self._slot = -1
        self.ring = ring
        self.owner = owner
        self.state = SubscriberState.REPLAYING

    @property
    def position(self) -> int:
        """The last sequence handed over, from which the reader can resume."""
        if self.state is SubscriberState.LIVE:
            return self._hub.frames(self.ring).cursor(self._slot)
        return self._position

    def leave(self) -> None:
        """Take nothing more from the ring. Idempotent."""
        self._hub.unsubscribe(self)

    @property
    def replaying(self) -> bool:
        """Whether storage must supply the next event."""
        return self.state is SubscriberState.REPLAYING

    @property
    def parked(self) -> bool:
        """Whether the flush skips this subscriber, because something else serves it."""
        return self.state is SubscriberState.LIVE and self._hub.frames(self.ring).is_parked(self._slot)

    @parked.setter
    def parked(self, parked: bool) -> None:
        self._is_parked = parked
        self._park()

    def _park(self) -> None:
        if self.state is SubscriberState.LIVE:
            self._hub.frames(self.ring).park(self._slot, self._is_parked or self.held)

    @property
    def held(self) -> bool:
        """Whether it gets no frames for now."""
        return self._holds > 0

    def hold(self, count: int) -> None:
        """Hold its frames back (1), or end a hold (-1), after which the ring must be flushed. Holds add up."""
        self._holds += count
        self._park()


class Lagged(NamedTuple):
    """A subscriber that the ring has overrun: how many frames it misses, and the sequence to resume from."""

    subscriber: Subscriber
    missed: int
    resume_from: int


class _RingEntry:
    __slots__ = ("frames", "live", "replaying", "stretched", "unflushed_bytes", "unflushed_events")

    def __init__(self, frames: PureRing) -> None:
        self.frames = frames
        self.unflushed_events = self.unflushed_bytes = 0  # published since the last flush
        self.stretched = False  # enlarged for a burst
        self.live: dict[int, Subscriber] = {}  # slot -> subscriber
        self.replaying: dict[Subscriber, None] = {}  # in the order in which they came


class Hub:
    """All rings of a process: each holds the newest frames of one log, for any number of subscribers.

    - `capacity_events`, `capacity_bytes`: the bounds of one ring.
    - `ring_type`: its class; None: the compiled one if it was built, else PureRing.

    A ring that is not open, a sequence out of order, and a subscriber in the wrong state raise LocalProtocolError.
    """

    def __init__(
        self,
        *,
        capacity_events: int = DEFAULT_CAPACITY_EVENTS,
        capacity_bytes: int = DEFAULT_CAPACITY_BYTES,
        ring_type: type[PureRing] | None = None,
    ) -> None:
        self._capacity_events = capacity_events
        self._capacity_bytes = capacity_bytes
        self.ring_type: type[PureRing] = ring_type if ring_type is not None else native.Ring
        self._rings: dict[str, _RingEntry] = {}
        self._published: dict[str, None] = {}  # rings for take_lagged to check
        self._active: dict[str, None] = {}  # rings for depths to check

    # --- rings -------------------------------------------------------------------------------------

    def open(self, ring: str, head: int) -> None:
        """Create the ring, empty. The next event published has the sequence `head + 1`. Raises LocalProtocolError if it is open."""
        if ring in self._rings:
            raise LocalProtocolError(f"ring {ring} is open")
        self._rings[ring] = _RingEntry(self.ring_type(head, self._capacity_events, self._capacity_bytes))

    def is_open(self, ring: str) -> bool:
        """Return whether the ring exists."""
        return ring in self._rings

    def close(self, ring: str) -> list[Subscriber]:
        """Remove the ring and return its subscribers."""
        entry = self._rings.pop(ring, None)
        self._published.pop(ring, None)
        self._active.pop(ring, None)
        if entry is None:
            return []
        subscribers = [*entry.live.values(), *entry.replaying]
        for subscriber in entry.live.values():
            subscriber._position = entry.frames.cursor(subscriber._slot)
        for subscriber in subscribers:
            subscriber.state = SubscriberState.GONE
        return subscribers

    def frames(self, ring: str) -> PureRing:
        """Return the ring's frames, for the native flush and for tests."""
        return self._entry(ring).frames

    def _entry(self, ring: str) -> _RingEntry:
        entry = self._rings.get(ring)
        if entry is None:
            raise LocalProtocolError(f"ring {ring} is not open")
        return entry

    def publish(self, ring: str, frame: bytes, sequence: int) -> bool:
        """Append the prepared `frame`, in O(1) for any number of subscribers.

        Raises LocalProtocolError unless `sequence` is `head + 1`.
        Return True if unflushed frames fill half of the ring; for a stretched ring, if less than one ring's room is left.
        Then flush or `stretch` it before the next publish, or the burst overruns readers that keep up.
        """
        entry = self._entry(ring)
        frames = entry.frames
        if sequence != frames.head + 1:
            raise LocalProtocolError(f"sequence {sequence} does not follow {frames.head}")
        frames.publish(frame)
        self._published[ring] = self._active[ring] = None
        entry.unflushed_events += 1
        entry.unflushed_bytes += len(frame)
        return self._fills(entry, STRETCHED_RINGS - 1 if entry.stretched else 0.5)

    def rewrite(self, ring: str, rewritten: Callable[[bytes], bytes | None]) -> int:
        """Replace every frame in the ring by the result of `rewritten`.

        None leaves a frame unchanged. Return how many were replaced; 0 if the ring is not open. Readers that have not received
        such a frame get the new one.
        """
        entry = self._rings.get(ring)
        if entry is None:
            return 0
        frames, replaced = entry.frames, 0
        for index in range(frames.tail, frames.head + 1):
            new = rewritten(frames.frame(index))
            if new is not None:
                frames.replace(index, new)
                replaced += 1
        return replaced

    def _fills(self, entry: _RingEntry, rings: float) -> bool:
        """Return whether the unflushed frames fill this many rings, in events or in bytes."""
        return (
            entry.unflushed_events >= rings * self._capacity_events
            or entry.unflushed_bytes >= rings * self._capacity_bytes
        )

    def stretch(self, ring: str) -> bool:
        """Enlarge the ring by the factor STRETCHED_RINGS until it is `flushed`, for a burst that cannot be flushed at once.

        Return False if it is stretched already.
        """
        entry = self._entry(ring)
        if entry.stretched:
            return False
        entry.stretched = True
        entry.frames.resize(STRETCHED_RINGS * self._capacity_events, STRETCHED_RINGS * self._capacity_bytes)
        return True

    def has_room(self, ring: str) -> bool:
        """Return False if unflushed frames fill half of a stretched ring: publish nothing that the log can supply later."""
        entry = self._rings.get(ring)
        return entry is None or not entry.stretched or not self._fills(entry, STRETCHED_RINGS / 2)

    def flushed(self, ring: str) -> None:
        """Mark the ring as flushed: every subscriber has all frames or is parked."""
        entry = self._entry(ring)
        entry.unflushed_events = entry.unflushed_bytes = 0
        if entry.stretched:
            entry.stretched = False
            entry.frames.resize(self._capacity_events, self._capacity_bytes)

    # --- subscribers -------------------------------------------------------------------------------

    def subscribe(self, ring: str, since: int, owner: object = None, handle: int = -1) -> Subscriber:
        """Add a reader that has all events up to `since`. Raises LocalProtocolError if `since` is beyond the head.

        `handle`: a number of 32 bits, bound to its place in the ring for exactly as long as it has one.
        """
        entry = self._entry(ring)
        if not -MAX_INT - 1 <= handle <= MAX_INT:  # the ring would refuse it when the reader has its place
            raise LocalProtocolError(f"handle {handle} has more than 32 bits")
        if not 0 <= since <= entry.frames.head:
            raise LocalProtocolError(f"since {since} is not within 0 and {entry.frames.head}")
        subscriber = Subscriber(self, ring, since, entry.frames.head, owner, handle)
        entry.replaying[subscriber] = None
        self._try_live(entry, subscriber)
        return subscriber

    def _try_live(self, entry: _RingEntry, subscriber: Subscriber) -> bool:
        if subscriber._position + 1 < entry.frames.tail:
            return False
        entry.replaying.pop(subscriber, None)
        subscriber._slot = entry.frames.attach(subscriber._position)
        entry.frames.bind(subscriber._slot, subscriber._handle)
        subscriber.state = SubscriberState.LIVE
        entry.live[subscriber._slot] = subscriber
        return True

    def replay_range(self, subscriber: Subscriber) -> tuple[int, int] | None:
        """Return (after, upto): storage must supply after < sequence <= upto, and the ring has the rest. None: it is live."""
        if subscriber.state is not SubscriberState.REPLAYING:
            return None
        entry = self._entry(subscriber.ring)
        return None if self._try_live(entry, subscriber) else (subscriber._position, entry.frames.tail - 1)

    def replayed(self, subscriber: Subscriber, upto: int) -> None:
        """Record that the socket has the events up to `upto`. The subscriber becomes live if the ring has the rest."""
        if subscriber.state is not SubscriberState.REPLAYING:
            raise LocalProtocolError("the subscriber is not replaying")
        entry = self._entry(subscriber.ring)
        if not subscriber._position <= upto <= entry.frames.head:
            raise LocalProtocolError("a replay moves forward, up to the head")
        subscriber._position = upto
        self._try_live(entry, subscriber)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Remove the subscriber from its ring. Idempotent."""
        if subscriber.state is SubscriberState.LIVE:
            entry = self._entry(subscriber.ring)
            subscriber._position = entry.frames.cursor(subscriber._slot)
            entry.frames.detach(subscriber._slot)
            del entry.live[subscriber._slot]
            subscriber.state = SubscriberState.GONE
        elif subscriber.state is SubscriberState.REPLAYING:
            self._entry(subscriber.ring).replaying.pop(subscriber, None)
            subscriber.state = SubscriberState.GONE

    # --- flush -------------------------------------------------------------------------------------

    def flush_plan(self, ring: str, limit: int) -> list[Subscriber]:
        """Return up to `limit` live subscribers that are behind and not parked, in turn. None left: the ring is flushed."""
        entry = self._entry(ring)
        live = entry.live
        return [live[slot] for slot in entry.frames.pending(limit)]

    def at(self, ring: str, slot: int) -> Subscriber:
        """Return the live subscriber at a slot of the ring, for the native flush."""
        return self._entry(ring).live[slot]

    def take(self, subscriber: Subscriber, max_bytes: int) -> bytes:
        """Return a contiguous span of whole frames for this subscriber, b"" if there are none, or it is held."""
        if subscriber.state is not SubscriberState.LIVE or subscriber.held:
            return b""
        return self._rings[subscriber.ring].frames.take(subscriber._slot, max_bytes)

    def sent(self, subscriber: Subscriber, nbytes: int) -> bytes:
        """Record that `nbytes` of the span were sent. Return the rest of a partly sent frame, for the socket's outbox."""
        if subscriber.state is not SubscriberState.LIVE:
            raise LocalProtocolError("the subscriber is not live")
        return self._rings[subscriber.ring].frames.sent(subscriber._slot, nbytes)

    def take_lagged(self, limit: int) -> list[Lagged]:
        """Unsubscribe and return up to `limit` subscribers that the rings have overrun."""
        lagged: list[Lagged] = []
        while self._published and len(lagged) < limit:
            ring = next(iter(self._published))
            entry = self._rings[ring]
            slots = entry.frames.lagged()
            room = limit - len(lagged)
            lagged += [self._overrun(entry, slot) for slot in slots[:room]]
            if len(slots) <= room:
                del self._published[ring]
        return lagged

    def _overrun(self, entry: _RingEntry, slot: int) -> Lagged:
        subscriber = entry.live.pop(slot)
        subscriber._position = entry.frames.cursor(slot)
        entry.frames.detach(slot)
        subscriber.state = SubscriberState.LAGGED
        return Lagged(subscriber, entry.frames.head - subscriber._position, subscriber._position)

    # --- getters -----------------------------------------------------------------------------------

    def head(self, ring: str) -> int:
        """Return the last sequence published."""
        return self._entry(ring).frames.head

    def depth(self, ring: str) -> int:
        """Return how many events the ring's deepest subscriber is behind, at most the capacity.

        A replaying subscriber counts the events published since it joined: the replay itself is not a backlog.
        """
        entry = self._entry(ring)
        depth = entry.frames.depth()
        if entry.replaying:
            depth = max(depth, entry.frames.head - min(subscriber._joined_head for subscriber in entry.replaying))
        return min(depth, self._capacity_events)

    def depths(self, limit: int | None = None) -> list[tuple[str, int]]:
        """Return (ring, depth) of the rings with a backlog, deepest first, at most `limit`."""
        deep = [(ring, depth) for ring in self._active if (depth := self.depth(ring)) > 0]
        self._active = dict.fromkeys(ring for ring, _ in deep)  # the others have no backlog before the next publish
        deep.sort(key=lambda item: -item[1])
        return deep[:limit]

    def subscriber_count(self, ring: str) -> int:
        """Return the number of subscribers, live and replaying. Raises LocalProtocolError if the ring is not open."""
        entry = self._entry(ring)
        return len(entry.live) + len(entry.replaying)

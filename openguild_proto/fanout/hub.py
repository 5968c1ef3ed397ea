"""The hub: streams, their subscribers, gapless replay-to-live, depth, and the policy for slow consumers.

How a runtime uses it:

- commands: `open`, `publish`, `subscribe`, `replayed`, `unsubscribe`, `close`;
- the flush: `flush_plan` names who is behind, `take` gives a span of whole frames, `sent` moves the cursor and
  returns the rest of a cut frame, `flushed` says that nobody is left, `take_lagged` names whom the ring has overrun;
- bursts: `publish` says when the ring gets full, `stretch` makes room until the flush is done, `has_room` says how much;
- getters: `head`, `depth`, `depths`, `subscriber_count`, `replay_range`.

A subscriber has a single cursor, `position`. While the ring no longer holds `position + 1` it is *replaying*: storage
supplies the log in pages, and as soon as the ring holds the next frame the subscriber goes *live*. One cursor, moved
only forward, is why nothing is lost or repeated between the two.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from openguild_proto.errors import LocalProtocolError
from openguild_proto.fanout import native
from openguild_proto.fanout.ring import Ring as PureRing
from openguild_proto.limits import DEFAULT_CAPACITY_BYTES, DEFAULT_CAPACITY_EVENTS, STRETCHED_RINGS


class SubscriberState(Enum):
    """Where a subscriber stands: it begins at REPLAYING or LIVE and ends at LAGGED or GONE."""

    REPLAYING = "replaying"  # storage must supply what comes next
    LIVE = "live"  # the ring holds what comes next
    LAGGED = "lagged"  # overrun by the ring; unsubscribed
    GONE = "gone"  # unsubscribed


class Subscriber:
    """One reader of one ring. `owner` is the runtime's: whatever it needs to find the socket again."""

    __slots__ = ("_handle", "_hub", "_joined_head", "_position", "_slot", "owner", "ring", "state")

    def __init__(self, hub: Hub, ring: str, position: int, head: int, owner: object, handle: int) -> None:
        self._handle = handle
        self._hub = hub
        self._position = position
        self._joined_head = head
        self._slot = -1
        self.ring = ring
        self.owner = owner
        self.state = SubscriberState.REPLAYING

    @property
    def position(self) -> int:
        """The last sequence handed over: what the reader resumes from."""
        if self.state is SubscriberState.LIVE:
            return self._hub.frames(self.ring).cursor(self._slot)
        return self._position

    @property
    def replaying(self) -> bool:
        """Whether storage must supply what comes next."""
        return self.state is SubscriberState.REPLAYING

    @property
    def parked(self) -> bool:
        """True: the flush leaves this subscriber alone, something else serves it."""
        return self.state is SubscriberState.LIVE and self._hub.frames(self.ring).is_parked(self._slot)

    @parked.setter
    def parked(self, parked: bool) -> None:
        if self.state is SubscriberState.LIVE:
            self._hub.frames(self.ring).park(self._slot, parked)


class Lagged(NamedTuple):
    """A subscriber the ring has overrun: how many frames it misses, and the sequence to resume from."""

    subscriber: Subscriber
    missed: int
    resume_from: int


class _RingEntry:
    __slots__ = ("frames", "live", "replaying", "stretched", "unflushed_bytes", "unflushed_events")

    def __init__(self, frames: PureRing) -> None:
        self.frames = frames
        self.unflushed_events = self.unflushed_bytes = 0  # published since the last flush
        self.stretched = False  # a burst is on its way out
        self.live: dict[int, Subscriber] = {}  # slot -> subscriber
        self.replaying: set[Subscriber] = set()


class Hub:
    """All streams of one process. `capacity_events` and `capacity_bytes` bound each ring; `ring_type` picks the class."""

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
        self._published: dict[str, None] = {}  # streams to be looked at by take_lagged
        self._active: dict[str, None] = {}  # streams to be looked at by depths

    # --- streams -----------------------------------------------------------------------------------

    def open(self, ring: str, head: int) -> None:
        """Begin `ring` with an empty ring; the next event published must have the sequence `head + 1`."""
        if ring in self._rings:
            raise LocalProtocolError(f"ring {ring} is open")
        self._rings[ring] = _RingEntry(self.ring_type(head, self._capacity_events, self._capacity_bytes))

    def is_open(self, ring: str) -> bool:
        """Whether `ring` has a ring."""
        return ring in self._rings

    def close(self, ring: str) -> list[Subscriber]:
        """End the ring and free its ring; returns the subscribers it still had."""
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
        """The ring's ring, for the native flush and for tests."""
        return self._entry(ring).frames

    def _entry(self, ring: str) -> _RingEntry:
        entry = self._rings.get(ring)
        if entry is None:
            raise LocalProtocolError(f"ring {ring} is not open")
        return entry

    def publish(self, ring: str, frame: bytes, sequence: int) -> bool:
        """Append the prepared `frame`: O(1), whatever the number of subscribers.

        True: since the ring was last `flushed` half of the ring's room is used, or of a stretched ring all but the room
        of one that is not stretched. Flush it or `stretch` it before more is published, or a burst overruns readers who
        keep up.
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

    def _fills(self, entry: _RingEntry, rings: float) -> bool:
        """What is fresh takes the room of so many rings, in events or in bytes."""
        return (
            entry.unflushed_events >= rings * self._capacity_events
            or entry.unflushed_bytes >= rings * self._capacity_bytes
        )

    def stretch(self, ring: str) -> bool:
        """A burst cannot be flushed at once: the ring holds STRETCHED_RINGS times as much until the ring is `flushed`.

        False: it does already.
        """
        entry = self._entry(ring)
        if entry.stretched:
            return False
        entry.stretched = True
        entry.frames.resize(STRETCHED_RINGS * self._capacity_events, STRETCHED_RINGS * self._capacity_bytes)
        return True

    def has_room(self, ring: str) -> bool:
        """False: half of a stretched ring is used. Publish nothing that can be read from the log later."""
        entry = self._rings.get(ring)
        return entry is None or not entry.stretched or not self._fills(entry, STRETCHED_RINGS / 2)

    def flushed(self, ring: str) -> None:
        """Every subscriber has been given what the ring had, or is parked: the flush is done with the ring."""
        entry = self._entry(ring)
        entry.unflushed_events = entry.unflushed_bytes = 0
        if entry.stretched:
            entry.stretched = False
            entry.frames.resize(self._capacity_events, self._capacity_bytes)

    # --- subscribers -------------------------------------------------------------------------------

    def subscribe(self, ring: str, since: int, owner: object = None, handle: int = -1) -> Subscriber:
        """A reader that has everything up to `since`. Raises LocalProtocolError when `since` is beyond the head.

        `handle`: a number bound to its place in the ring for exactly as long as it has one.
        """
        entry = self._entry(ring)
        if not 0 <= since <= entry.frames.head:
            raise LocalProtocolError(f"since {since} is not within 0 and {entry.frames.head}")
        subscriber = Subscriber(self, ring, since, entry.frames.head, owner, handle)
        entry.replaying.add(subscriber)
        self._try_live(entry, subscriber)
        return subscriber

    def _try_live(self, entry: _RingEntry, subscriber: Subscriber) -> bool:
        if subscriber._position + 1 < entry.frames.tail:
            return False
        entry.replaying.discard(subscriber)
        subscriber._slot = entry.frames.attach(subscriber._position)
        entry.frames.bind(subscriber._slot, subscriber._handle)
        subscriber.state = SubscriberState.LIVE
        entry.live[subscriber._slot] = subscriber
        return True

    def replay_range(self, subscriber: Subscriber) -> tuple[int, int] | None:
        """(after, upto): storage must supply after < sequence <= upto; the ring has the rest. None: live by now."""
        if subscriber.state is not SubscriberState.REPLAYING:
            return None
        entry = self._entry(subscriber.ring)
        return None if self._try_live(entry, subscriber) else (subscriber._position, entry.frames.tail - 1)

    def replayed(self, subscriber: Subscriber, upto: int) -> None:
        """Everything up to `upto` has been handed to the socket; the subscriber goes live when the ring has the rest."""
        if subscriber.state is not SubscriberState.REPLAYING:
            raise LocalProtocolError("the subscriber is not replaying")
        entry = self._entry(subscriber.ring)
        if not subscriber._position <= upto <= entry.frames.head:
            raise LocalProtocolError("a replay moves forward, up to the head")
        subscriber._position = upto
        self._try_live(entry, subscriber)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Leave the ring; safe to repeat."""
        if subscriber.state is SubscriberState.LIVE:
            entry = self._entry(subscriber.ring)
            subscriber._position = entry.frames.cursor(subscriber._slot)
            entry.frames.detach(subscriber._slot)
            del entry.live[subscriber._slot]
            subscriber.state = SubscriberState.GONE
        elif subscriber.state is SubscriberState.REPLAYING:
            self._entry(subscriber.ring).replaying.discard(subscriber)
            subscriber.state = SubscriberState.GONE

    # --- flush -------------------------------------------------------------------------------------

    def flush_plan(self, ring: str, limit: int) -> list[Subscriber]:
        """Up to `limit` live subscribers that are behind and not parked, in turn. Empty: the ring is flushed."""
        entry = self._entry(ring)
        live = entry.live
        return [live[slot] for slot in entry.frames.pending(limit)]

    def at(self, ring: str, slot: int) -> Subscriber:
        """The live subscriber at a slot of the ring's ring, for a flush that works on the ring itself."""
        return self._entry(ring).live[slot]

    def take(self, subscriber: Subscriber, max_bytes: int) -> bytes:
        """A contiguous span of whole frames for this subscriber, b"" when there is nothing."""
        if subscriber.state is not SubscriberState.LIVE:
            return b""
        return self._rings[subscriber.ring].frames.take(subscriber._slot, max_bytes)

    def sent(self, subscriber: Subscriber, nbytes: int) -> bytes:
        """`nbytes` of the span have left; returns the rest of the frame that was cut, for the socket's outbox."""
        if subscriber.state is not SubscriberState.LIVE:
            raise LocalProtocolError("the subscriber is not live")
        return self._rings[subscriber.ring].frames.sent(subscriber._slot, nbytes)

    def take_lagged(self, limit: int) -> list[Lagged]:
        """Up to `limit` subscribers that the rings have overrun; they are unsubscribed now. Fewer: there are no others."""
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
        """The last sequence published."""
        return self._entry(ring).frames.head

    def depth(self, ring: str) -> int:
        """The deepest subscriber of the ring, in events; at most the capacity.

        For one that replays it is what has been published since it joined: the log it asked for is no backlog.
        """
        entry = self._entry(ring)
        depth = entry.frames.depth()
        if entry.replaying:
            depth = max(depth, entry.frames.head - min(subscriber._joined_head for subscriber in entry.replaying))
        return min(depth, self._capacity_events)

    def depths(self, limit: int | None = None) -> list[tuple[str, int]]:
        """The deepest streams, deepest first, only those with a backlog; all of them without `limit`."""
        deep = [(ring, depth) for ring in self._active if (depth := self.depth(ring)) > 0]
        self._active = dict.fromkeys(ring for ring, _ in deep)  # the others have no backlog until the next publish
        deep.sort(key=lambda item: -item[1])
        return deep[:limit]

    def subscriber_count(self, ring: str) -> int:
        """How many subscribers `ring` has, live and replaying. Raises LocalProtocolError where it is not open."""
        entry = self._entry(ring)
        return len(entry.live) + len(entry.replaying)

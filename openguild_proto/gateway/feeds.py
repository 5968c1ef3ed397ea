"""The logs that sockets follow: one ring for each log and encoding, shared by all sockets of a process.

A ring holds whole WebSocket messages, so an event is encoded once for each encoding. A follower is a slot of the ring, bound to
the socket's handle, and an entry in the socket's `Subscriptions`. The cost of publishing does not depend on the followers.

The call contract, for the owner of the sockets:

- `open` a feed before a socket follows it, at the current head of the log; `publish` each event; `close` the feed when nobody
  follows it any more;
- `join` a socket under a handle, and `leave` before its handle is reused;
- flush the rings that `publish` returns: with `flush`, or with a native flush that calls `parked` for each slot that it parks.
  A flush skips sockets whose gate is shut: they have something else to write first, and then fetch the events themselves;
- after a flush call `end_overrun`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from openguild_proto.errors import LocalProtocolError
from openguild_proto.fanout.hub import Hub
from openguild_proto.fanout.ring import Ring
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.hint_frames import HintFrames


class Follower(Protocol):
    """The interface of a socket to feeds."""

    handle: int

    def parked(self, feed: Feed) -> None:
        """Note that a flush skipped the socket, or could not send it everything."""

    def dropped_by_ring(self, feed: Feed) -> None:
        """Note that the ring dropped the socket's next event. The follower must return its slot."""

    def offer(self, hints: HintFrames) -> None:
        """Queue hints about users. They may be dropped."""


class Feed:
    """One log in one encoding. `readers`: sockets that follow it without a slot."""

    __slots__ = ("base", "encoding", "epoch", "key", "log", "readers", "ring", "slots")

    def __init__(self, log: str, epoch: int, encoding: Encoding, key: str, ring: Ring) -> None:
        self.log = log
        self.epoch = epoch
        self.base = 0  # the first stored event of a mirrored log comes after this sequence
        self.encoding = encoding
        self.key = key  # of the ring, in the hub
        self.ring = ring
        self.readers: dict[Follower, None] = {}
        self.slots = 0  # one more than the highest slot ever used

    @property
    def head(self) -> int:
        """The newest sequence published."""
        return self.ring.head

    @property
    def is_followed(self) -> bool:
        """Whether any socket follows it."""
        return bool(self.readers) or self.ring.slots > 0

    def reaches(self, position: int) -> bool:
        """Return whether the ring has the event after `position`, or will receive it next."""
        return position >= self.ring.tail - 1

    def attach(self, position: int, handle: int) -> int:
        """Give a socket a slot whose next event is the one after `position`.

        Raises LocalProtocolError if the ring does not reach it (`reaches`).
        """
        slot = self.ring.attach(position)
        self.ring.bind(slot, handle)
        self.slots = max(self.slots, slot + 1)
        return slot


class Feeds:
    """All feeds of a process. `hub`: used by nothing else; gateway sockets have slots in its rings instead of subscribers."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.gates = bytearray()  # by handle; 1 means shut
        self._feeds: tuple[dict[str, Feed], ...] = ({}, {})  # by encoding, by log
        self._by_key: dict[str, Feed] = {}
        self._sockets: dict[int, Follower] = {}  # by handle
        self.followed = 0  # number of pairs of a socket and a log
        self.read_from_log = 0  # how many of them have no slot, because their next event is not in the ring

    # --- logs ----------------------------------------------------------------------------------------

    def open(self, log: str, epoch: int, head: int, encoding: Encoding, base: int = 0) -> Feed:
        """Return the feed, created with an empty ring at `head` if it is not open.

        `base`: the sequence after which a mirrored log begins here.
        """
        feeds = self._of(encoding)
        feed = feeds.get(log)
        if feed is None:
            key = f"{encoding.value} {log}"
            self.hub.open(key, head)
            feed = feeds[log] = Feed(log, epoch, encoding, key, self.hub.frames(key))
            self._by_key[key] = feed
        feed.base = base
        return feed

    def get(self, log: str, encoding: Encoding) -> Feed | None:
        """Return the feed, or None if it is not open."""
        return self._of(encoding).get(log)

    def _of(self, encoding: Encoding) -> dict[str, Feed]:
        return self._feeds[encoding is Encoding.MSGPACK]

    def close(self, feed: Feed) -> None:
        """Remove a feed without followers. Raises LocalProtocolError if it has any."""
        if feed.is_followed:
            raise LocalProtocolError(f"{feed.log} is followed")
        self.retire(feed)

    def retire(self, feed: Feed) -> None:
        """Remove a feed whose log was deleted or restarted. Its followers receive no more events of it. Safe to repeat."""
        if self._of(feed.encoding).get(feed.log) is feed:
            del self._of(feed.encoding)[feed.log]
            del self._by_key[feed.key]
            self.hub.close(feed.key)

    def publish(self, log: str, sequence: int, wire: bytes) -> list[tuple[str, bool]]:
        """Publish the next event to all followers of the log, in O(1). `wire`: the event as JSON.

        Returns the rings to flush, each with whether unflushed events fill half of it: then flush or stretch it before the
        next event (`Hub.publish`). Raises LocalProtocolError if `sequence` does not follow the head.
        """
        rings = []
        for encoding, feeds in zip(Encoding, self._feeds, strict=True):
            feed = feeds.get(log)
            if feed is not None:
                message = encoding.event_message(log, feed.epoch, sequence, wire)
                rings.append((feed.key, self.hub.publish(feed.key, message, sequence)))
        return rings

    def rewrite(self, log: str, rewritten: Callable[[bytes], bytes | None]) -> int:
        """Replace events in the rings of a log.

        `rewritten` receives each event as JSON and returns its replacement, None to leave it unchanged. Returns the number of
        replaced messages.
        """
        return sum(self._rewrite(feeds[log], rewritten) for feeds in self._feeds if log in feeds)

    def _rewrite(self, feed: Feed, rewritten: Callable[[bytes], bytes | None]) -> int:
        ring, replaced = feed.ring, 0
        for sequence in range(ring.tail, ring.head + 1):
            wire = rewritten(feed.encoding.event_of(ring.frame(sequence)))
            if wire is not None:
                ring.replace(sequence, feed.encoding.event_message(feed.log, feed.epoch, sequence, wire))
                replaced += 1
        return replaced

    @property
    def is_empty(self) -> bool:
        """Whether no feed is open."""
        return not self._by_key

    def log_of(self, key: str) -> str:
        """Return the log of a ring. Raises KeyError if there is no such feed."""
        return self._by_key[key].log

    def feeds_of(self, log: str) -> list[Feed]:
        """Return the open feeds of a log."""
        return [feeds[log] for feeds in self._feeds if log in feeds]

    # --- sockets -------------------------------------------------------------------------------------

    def join(self, handle: int, socket: Follower) -> None:
        """Add a socket under `handle`, a small unique number such as its descriptor. Raises LocalProtocolError if it is in use."""
        if handle in self._sockets:
            raise LocalProtocolError(f"handle {handle} is taken")
        if handle >= len(self.gates):
            self.gates.extend(bytes(max(handle + 1, 2 * len(self.gates)) - len(self.gates)))
        self._sockets[handle] = socket
        self.gates[handle] = 0

    def leave(self, handle: int) -> None:
        """Remove a socket that follows no logs. Safe to repeat."""
        self._sockets.pop(handle, None)

    def followers(self, feed: Feed) -> Iterator[Follower]:
        """Yield the sockets that follow a feed. Sockets that leave during the iteration may be skipped."""
        yield from list(feed.readers)
        for slot in range(feed.slots):
            socket = self._socket_at(feed, slot)
            if socket is not None:
                yield socket

    def _socket_at(self, feed: Feed, slot: int) -> Follower | None:
        try:
            return self._sockets.get(feed.ring.handle(slot))
        except LocalProtocolError:  # the slot is free
            return None

    def ephemeral(self, log: str, kind: str, hints: Mapping[str, bytes]) -> Iterator[Follower]:
        """Offer hints to each follower of a log, and yield after each follower. `hints`: JSON by the id of the user concerned.

        A follower accepts all of them or none, so together they must be smaller than `MAX_EPHEMERAL_BYTES`.
        """
        for feed in self.feeds_of(log):
            encoding = feed.encoding
            messages = {about: encoding.ephemeral_message(log, kind, data) for about, data in hints.items()}
            frames = HintFrames(messages, momentary=kind == "typing")
            for socket in self.followers(feed):
                socket.offer(frames)
                yield socket

    # --- the flush -----------------------------------------------------------------------------------

    def flush(
        self, key: str, limit: int, max_bytes: int, send: Callable[[int, bytes], int]
    ) -> tuple[int, bool, list[tuple[int, bytes]]]:
        """Send up to `max_bytes` to each of up to `limit` followers with unsent events, in turn: the flush in pure Python.

        `send(handle, messages)` returns how many bytes the socket accepted. Returns the number of followers served, whether
        any follower still has unsent events, and (handle, rest) for each partly sent message: the rest must be written first.
        """
        feed = self._by_key.get(key)
        if feed is None:
            return 0, False, []
        ring, rests = feed.ring, list[tuple[int, bytes]]()
        slots = ring.pending(limit)
        for slot in slots:
            handle = ring.handle(slot)
            if self.gates[handle]:
                self.parked(key, slot)
                continue
            span = ring.take(slot, max_bytes)
            taken = send(handle, span)
            rest = ring.sent(slot, taken)
            if rest:
                rests.append((handle, rest))
            if taken < len(span):
                self.parked(key, slot)
        return len(slots), bool(ring.pending(1)), rests

    def parked(self, key: str, slot: int) -> None:
        """Park a slot that the flush skipped because its gate is shut, or whose socket accepted less than it was given."""
        feed = self._by_key[key]
        socket = self._socket_at(feed, slot)
        if socket is not None:
            feed.ring.park(slot, True)
            socket.parked(feed)

    def end_overrun(self, key: str) -> int:
        """Make followers whose next event was dropped from the ring read from the log. Return how many there were."""
        feed = self._by_key.get(key)
        lagged = feed.ring.lagged() if feed is not None else []
        for slot in lagged:
            socket = self._socket_at(feed, slot) if feed is not None else None
            if feed is not None and socket is not None:
                socket.dropped_by_ring(feed)
        return len(lagged)

"""The logs that one socket follows, and the choice of the log that is written next.

A log costs an entry of a dict and an integer, which packs its state with its slot or position. An event that the flush delivers
costs nothing here. When the socket has other bytes to write, logs that the flush skipped queue here and take turns of
`GATEWAY_TURN_BYTES` each, so that a flood in one log does not starve the others.

The owner of the socket calls `next_write` when the socket accepts bytes, then `sent` before anything else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from openguild_proto.errors import LocalProtocolError
from openguild_proto.gateway.feeds import Feed, Feeds
from openguild_proto.gateway.following import FOLLOWING, STEPS, Following, Step
from openguild_proto.gateway.frames import Lagging, Live
from openguild_proto.gateway.hint_frames import HintFrames
from openguild_proto.limits import GATEWAY_TURN_BYTES, MAX_PAGE_EVENTS
from openguild_proto.ws.frames import message_end

_BITS, _MASK = 3, 7
_STATES = tuple(Following)
_IN_RING = tuple(FOLLOWING[state].in_ring for state in _STATES)


class SubscriptionHandler(Protocol):
    """The owner of the subscriptions."""

    def has_output(self) -> None:
        """There is something to write: shut the gate, and call `next_write` when the socket accepts bytes."""

    def read_page(self, feed: Feed, after: int, limit: int) -> None:
        """Read up to `limit` events after `after` from the log; answer with `page`."""

    def offer(self, hints: HintFrames) -> None:
        """Take hints about users, which may be lost."""


class Subscriptions:
    """`handle`: identifies the socket in `feeds`."""

    __slots__ = (
        "_behind", "_due", "_entries", "_feeds", "_handler", "_page", "_reading", "_resting", "_writing", "handle",
    )  # fmt: skip

    def __init__(self, feeds: Feeds, handle: int, handler: SubscriptionHandler) -> None:
        self._feeds = feeds
        self.handle = handle
        self._handler = handler
        self._entries: dict[Feed, int] = {}
        self._due: deque[Feed] | None = None  # have something to write; None while there are none
        self._behind: deque[Feed] | None = None  # need a page
        self._reading: Feed | None = None  # whose page was asked for or is being written: one of a socket
        self._page: list[bytes] | None = None  # pieces of whole messages
        self._resting = False  # a log could not be read
        self._writing: bytes | None = None  # given by `next_write`
        feeds.join(handle, self)

    # --- getters -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, feed: Feed) -> bool:
        return feed in self._entries

    def feeds(self) -> list[Feed]:
        """Return the followed logs."""
        return list(self._entries)

    def state(self, feed: Feed) -> Following:
        """Return the socket's state in a log. Raises KeyError if it does not follow it."""
        return _STATES[self._entries[feed] & _MASK]

    def position(self, feed: Feed) -> int:
        """Return the last sequence given to the socket. Raises KeyError if it does not follow the log."""
        packed = self._entries[feed]
        return feed.ring.cursor(packed >> _BITS) if _IN_RING[packed & _MASK] else packed >> _BITS

    # --- following -----------------------------------------------------------------------------------

    def begin(self, feed: Feed, after: int) -> None:
        """Follow a log after `after`, which is not beyond its head. If the log is followed already, its position moves."""
        if not 0 <= after <= feed.head:
            raise LocalProtocolError(f"{after} is not within 0 and {feed.head}")
        self.end(feed)
        self._feeds.followed += 1
        if after == feed.head:
            self._entries[feed] = feed.attach(after, self.handle) << _BITS | Following.LIVE
        else:
            self._entries[feed] = after << _BITS | Following.REPLAYING
            self._read_from_log(feed)
            self._catch_up(feed)

    def end(self, feed: Feed) -> None:
        """Follow a log no longer. Safe to repeat."""
        if self._leave(feed):
            for queue in (self._due, self._behind):
                if queue is not None and feed in queue:
                    queue.remove(feed)

    def end_some(self, feeds: Iterable[Feed]) -> list[Feed]:
        """`end` each of these, however many, in one pass over those that wait. Return the ones that were followed."""
        ended = [feed for feed in feeds if self._leave(feed)]
        self._due, self._behind = (
            queue and deque(feed for feed in queue if feed in self._entries) for queue in (self._due, self._behind)
        )
        return ended

    def end_all(self) -> list[Feed]:
        """Follow nothing any more, and give the handle back. Return what was followed."""
        ended = self.end_some(list(self._entries))
        self._feeds.leave(self.handle)
        return ended

    def _leave(self, feed: Feed) -> bool:
        """Follow a log no longer, except that it may still be in a queue. Return whether it was followed."""
        packed = self._entries.pop(feed, None)
        if packed is None:
            return False
        self._feeds.followed -= 1
        if _IN_RING[packed & _MASK]:
            feed.ring.detach(packed >> _BITS)
        else:
            self._read_no_more(feed)
        if self._reading is feed:
            self._reading = self._page = None
        return True

    # --- what the flush says -------------------------------------------------------------------------

    def parked(self, feed: Feed) -> None:
        """The flush has skipped the socket: the log waits for its turn."""
        if self.state(feed) is Following.LIVE:
            self._step(feed, Step.PASSED)
            self._queue(feed)

    def fell_off(self, feed: Feed) -> None:
        """The ring has dropped the next event: from now on the log serves this follower, from its position."""
        packed = self._entries[feed]
        state, slot = _STATES[packed & _MASK], packed >> _BITS
        after = STEPS[state][Step.FELL_OFF]
        position = feed.ring.cursor(slot)
        feed.ring.detach(slot)
        self._entries[feed] = position << _BITS | after
        self._read_from_log(feed)
        if state is Following.LIVE:
            self._queue(feed)
        elif after is Following.LAGGING:  # it was in the queue to be told `live`
            if self._due is not None:
                self._due.remove(feed)
            self._catch_up(feed)

    def offer(self, hints: HintFrames) -> None:
        """Pass on hints about users, which may be lost."""
        self._handler.offer(hints)

    def _read_from_log(self, feed: Feed) -> None:
        feed.readers[self] = None
        self._feeds.read_from_log += 1

    def _read_no_more(self, feed: Feed) -> None:
        del feed.readers[self]
        self._feeds.read_from_log -= 1

    def _step(self, feed: Feed, step: Step) -> Following:
        packed = self._entries[feed]
        after = STEPS[_STATES[packed & _MASK]][step]
        self._entries[feed] = packed & ~_MASK | after
        return after

    def _queue(self, feed: Feed) -> None:
        if self._due is None:
            self._due = deque()
        self._due.append(feed)
        self._handler.has_output()

    def _catch_up(self, feed: Feed) -> None:
        """Return to the ring if it has the next event, otherwise wait for a page."""
        position = self._entries[feed] >> _BITS
        if feed.reaches(position):
            self._read_no_more(feed)
            slot = feed.attach(position, self.handle)
            feed.ring.park(slot, True)  # until it is level
            self._entries[feed] = slot << _BITS | STEPS[self.state(feed)][Step.REACHED]
            self._queue(feed)
            return
        if self._behind is None:
            self._behind = deque()
        self._behind.append(feed)
        self._handler.has_output()

    # --- writing -------------------------------------------------------------------------------------

    def next_write(self, max_bytes: int) -> bytes:
        """Return whole messages of the log whose turn it is, at least one; b"": there are none now."""
        self._ask_for_page()
        due = self._due
        while due:
            feed = due[0]
            data = self._part(feed, max_bytes)
            if data:
                self._writing = data
                return data
            if due and due[0] is feed:
                due.popleft()
        self._due = None
        return b""

    def _part(self, feed: Feed, max_bytes: int) -> bytes:
        match self.state(feed):
            case Following.OVERRUN:
                return feed.encoding.message(Lagging(feed.log, feed.head))
            case Following.RETURNED:
                if self._is_overrun(feed):
                    self.fell_off(feed)
                    return b""
                return feed.encoding.message(Live(feed.log))
            case Following.DUE:
                if self._is_overrun(feed):
                    self.fell_off(feed)
                    return feed.encoding.message(Lagging(feed.log, feed.head))
                slot = self._entries[feed] >> _BITS
                data = feed.ring.take(slot, min(max_bytes, GATEWAY_TURN_BYTES))
                if data:
                    return data
                feed.ring.park(slot, False)
                self._step(feed, Step.LEVEL)
                return b""
            case _ if self._page:
                return self._page[0]
        return b""

    def _is_overrun(self, feed: Feed) -> bool:
        return not feed.reaches(feed.ring.cursor(self._entries[feed] >> _BITS))

    def sent(self, nbytes: int) -> bytes:
        """Record that the socket accepted `nbytes` of the last `next_write`. Return the rest of a partly sent message.

        The rest must be written before anything else. Other messages that were not sent are returned again.
        """
        data, self._writing = self._writing, None
        if data is None or not self._due or not 0 <= nbytes <= len(data):
            raise LocalProtocolError("nothing of this is being written")
        feed = self._due[0]
        if nbytes == 0:
            self._forget_page(feed)
            return b""
        self._due.rotate(-1)
        match self.state(feed):
            case Following.OVERRUN:
                self._due.remove(feed)
                self._step(feed, Step.TOLD)
                self._catch_up(feed)
                return data[nbytes:]
            case Following.RETURNED:
                self._step(feed, Step.TOLD)
                return data[nbytes:]
            case Following.DUE:
                return feed.ring.sent(self._entries[feed] >> _BITS, nbytes)
        return self._sent_of_page(feed, data, nbytes)

    def _sent_of_page(self, feed: Feed, data: bytes, nbytes: int) -> bytes:
        end = count = 0
        while end < nbytes:
            end = message_end(data, end)
            count += 1
        self._entries[feed] += count << _BITS
        if self._page is not None and nbytes == len(data) and len(self._page) > 1:
            del self._page[0]
        else:
            self._forget_page(feed)
        return data[nbytes:end]

    def _forget_page(self, feed: Feed) -> None:
        """Drop a page: all of it is written, or the socket is blocked and the page is read again when it accepts bytes."""
        if self._reading is feed and self._page is not None and self._due is not None:
            self._reading = self._page = None
            self._due.remove(feed)
            self._catch_up(feed)

    # --- pages ---------------------------------------------------------------------------------------

    def _ask_for_page(self) -> None:
        if self._reading is not None or self._resting or not self._behind:
            return
        feed = self._reading = self._behind.popleft()
        if not self._behind:
            self._behind = None
        after = self.position(feed)
        self._step(feed, Step.ASKED)
        self._handler.read_page(feed, after, min(MAX_PAGE_EVENTS, feed.ring.tail - 1 - after))

    def page(self, feed: Feed, after: int, pieces: Sequence[bytes]) -> bool:
        """Take whole messages of the events directly after `after`, in pieces; none: the log could not be read.

        Return False if it could not: nothing is read until `rested`. An answer that is no longer awaited is ignored.
        """
        if self._reading is not feed or self._page is not None or self.position(feed) != after:
            return True
        self._step(feed, Step.PAGE)
        if not pieces:
            self._reading = None
            self._resting = True
            self._catch_up(feed)
            return False
        self._page = list(pieces)
        self._queue(feed)
        return True

    def rested(self) -> None:
        """Read again."""
        self._resting = False
        if self._behind:
            self._handler.has_output()

    @property
    def resting(self) -> bool:
        """Whether a log could not be read, and `rested` is awaited."""
        return self._resting

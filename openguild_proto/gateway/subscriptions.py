"""The logs that one socket follows, and the choice of the log that is written next.

A log costs one dict entry with an integer, which packs its state with its slot or position. Events that the flush delivers cost
nothing here. When the flush skips a socket because it has something else to write, the logs with unsent events queue here. They
take turns of `GATEWAY_TURN_BYTES` each, so that a flood in one log does not starve the others.

The owner of the socket calls `next_write` when the socket accepts bytes, then `sent` before any other method.
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
        """Shut the gate, and call `next_write` when the socket accepts bytes: there is something to write."""

    def read_page(self, feed: Feed, after: int, limit: int) -> None:
        """Read up to `limit` events of the log after `after`; answer with `page`."""

    def offer(self, hints: HintFrames) -> None:
        """Queue hints about users. They may be dropped."""


class Subscriptions:
    """The logs of one socket. `handle`: identifies the socket in `feeds`."""

    __slots__ = (
        "_behind", "_due", "_entries", "_feeds", "_handler", "_page", "_reading", "_resting", "_writing", "handle",
    )  # fmt: skip

    def __init__(self, feeds: Feeds, handle: int, handler: SubscriptionHandler) -> None:
        self._feeds = feeds
        self.handle = handle
        self._handler = handler
        self._entries: dict[Feed, int] = {}
        self._due: deque[Feed] | None = None  # logs with something to write; may be None while empty
        self._behind: deque[Feed] | None = None  # logs that need a page; may be None while empty
        self._reading: Feed | None = None  # the one log whose page was requested or is being written
        self._page: list[bytes] | None = None  # pieces of whole messages
        self._resting = False  # True after a log could not be read
        self._writing: bytes | None = None  # returned by `next_write`
        feeds.join(handle, self)

    # --- getters -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, feed: Feed) -> bool:
        return feed in self._entries

    def feeds(self) -> list[Feed]:
        """Return the followed feeds."""
        return list(self._entries)

    def state(self, feed: Feed) -> Following:
        """Return the state of a followed log. Raises KeyError if it is not followed."""
        return _STATES[self._entries[feed] & _MASK]

    def position(self, feed: Feed) -> int:
        """Return the last sequence given to the socket. Raises KeyError if the log is not followed."""
        packed = self._entries[feed]
        return feed.ring.cursor(packed >> _BITS) if _IN_RING[packed & _MASK] else packed >> _BITS

    # --- following -----------------------------------------------------------------------------------

    def begin(self, feed: Feed, after: int) -> None:
        """Follow a log after `after`. A log that is already followed is followed from there instead.

        Raises LocalProtocolError if `after` is beyond the head.
        """
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
        """Stop following a log. Safe to repeat."""
        if self._leave(feed):
            for queue in (self._due, self._behind):
                if queue is not None and feed in queue:
                    queue.remove(feed)

    def end_some(self, feeds: Iterable[Feed]) -> list[Feed]:
        """`end` several logs in one pass over the queues. Return the feeds that were followed."""
        ended = [feed for feed in feeds if self._leave(feed)]
        self._due, self._behind = (
            queue and deque(feed for feed in queue if feed in self._entries) for queue in (self._due, self._behind)
        )
        return ended

    def end_all(self) -> list[Feed]:
        """Stop following all logs and release the handle. Return the feeds that were followed."""
        ended = self.end_some(list(self._entries))
        self._feeds.leave(self.handle)
        return ended

    def _leave(self, feed: Feed) -> bool:
        """Stop following a log, but leave it in the queues. Return whether it was followed."""
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

    # --- calls of the flush --------------------------------------------------------------------------

    def parked(self, feed: Feed) -> None:
        """Queue the log for its turn, because the flush skipped the socket."""
        if self.state(feed) is Following.LIVE:
            self._step(feed, Step.PASSED)
            self._queue(feed)

    def dropped_by_ring(self, feed: Feed) -> None:
        """Read the log from its position from now on, because the ring dropped its next event."""
        packed = self._entries[feed]
        state, slot = _STATES[packed & _MASK], packed >> _BITS
        after = STEPS[state][Step.FELL_OFF]
        position = feed.ring.cursor(slot)
        feed.ring.detach(slot)
        self._entries[feed] = position << _BITS | after
        self._read_from_log(feed)
        if state is Following.LIVE:
            self._queue(feed)
        elif after is Following.LAGGING:  # it was queued for its `live`, which is not sent now
            if self._due is not None:
                self._due.remove(feed)
            self._catch_up(feed)

    def offer(self, hints: HintFrames) -> None:
        """Pass hints about users to the handler. They may be dropped."""
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
        """Return the log to the ring if the ring has its next event, otherwise queue it for a page."""
        position = self._entries[feed] >> _BITS
        if feed.reaches(position):
            self._read_no_more(feed)
            slot = feed.attach(position, self.handle)
            feed.ring.park(slot, True)  # until it has received everything in the ring
            self._entries[feed] = slot << _BITS | STEPS[self.state(feed)][Step.REACHED]
            self._queue(feed)
            return
        if self._behind is None:
            self._behind = deque()
        self._behind.append(feed)
        self._handler.has_output()

    # --- writing -------------------------------------------------------------------------------------

    def next_write(self, max_bytes: int) -> bytes:
        """Return whole messages, at least one, of the log whose turn it is, b"" if there are none now."""
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
                    self.dropped_by_ring(feed)
                    return b""
                return feed.encoding.message(Live(feed.log))
            case Following.DUE:
                if self._is_overrun(feed):
                    self.dropped_by_ring(feed)
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

        The rest must be written before anything else. Messages that were not sent at all are returned by `next_write` again.
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
        """Drop the rest of a page: all of it is written, or it is read again when the socket accepts more."""
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
        """Queue a page: whole messages of the events right after `after`, in pieces. No pieces: the log could not be read.

        Returns False if the log could not be read; then no page is requested until `rested`. A page that is no longer awaited
        is ignored.
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
        """Request pages again."""
        self._resting = False
        if self._behind:
            self._handler.has_output()

    @property
    def resting(self) -> bool:
        """Whether a log could not be read, and `rested` has not been called since."""
        return self._resting

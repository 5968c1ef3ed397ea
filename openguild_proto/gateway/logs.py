"""The logs that a socket follows: the client's `sub` and `unsub`, and the owner's answers (PROTOCOL 15.3)."""

from __future__ import annotations

from collections.abc import Sequence

from openguild_proto.errors import ErrorCode
from openguild_proto.gateway.actions import CountReads, Subscribe, Unsubscribe
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.feeds import Feed, Feeds
from openguild_proto.gateway.frames import Gone, GoneCode, Sub, Unsub
from openguild_proto.gateway.lanes import Lanes
from openguild_proto.gateway.openings import Openings, decide_begin
from openguild_proto.gateway.outputs import SocketOutputs
from openguild_proto.gateway.subscriptions import Subscriptions
from openguild_proto.limits import MAX_GATEWAY_LOGS
from openguild_proto.policy.count_limits import reads_of


class SocketLogs:
    """The logs of one socket. `lanes`: holds its `sub` and `unsub` frames, which are started in order, one at a time."""

    __slots__ = ("_encoding", "_feeds", "_lanes", "_openings", "_outputs", "_uncounted", "subscriptions")

    def __init__(self, feeds: Feeds, handle: int, encoding: Encoding, outputs: SocketOutputs, lanes: Lanes) -> None:
        self._feeds = feeds
        self._encoding = encoding
        self._outputs = outputs
        self._lanes = lanes
        self._openings = Openings()
        self._uncounted: Sub | None = None  # waits until its reads are counted
        self.subscriptions = Subscriptions(feeds, handle, outputs)

    # --- requests of the client ----------------------------------------------------------------------

    def begin_changes(self) -> None:
        """Start waiting changes, up to the first one that must be answered before the next may start."""
        while not self._openings.number and (change := self._lanes.next_change()) is not None:
            if isinstance(change, Sub):
                self._uncounted = change
                self._openings.number = self._outputs.next_number()
                self.count_reads()
            else:
                self._unsubscribe(change)

    def count_reads(self) -> None:
        """Request a `CountReads` for the waiting `sub`, if there is one."""
        if self._uncounted is not None:
            self._outputs.act(CountReads(self._openings.number, reads_of(len(self._uncounted.logs))))

    def reads_counted(self, number: int) -> None:
        """Start the waiting `sub`: the reads of this `CountReads` are allowed."""
        if self.waits_for_reads(number) and (sub := self._uncounted) is not None:
            self._uncounted = None
            self._openings.number = 0
            self._subscribe(sub)
            self.begin_changes()

    def waits_for_reads(self, number: int) -> bool:
        """Return whether a `sub` waits for the answer to this `CountReads`."""
        return self._uncounted is not None and self._openings.number == number

    def _subscribe(self, sub: Sub) -> None:
        wanted = self._openings.begin(sub, self._follows, MAX_GATEWAY_LOGS - len(self.subscriptions))
        for log, code, message in wanted.refused:
            self._outputs.refuse(sub.ref, code, message, log)
        if wanted.logs:
            self._openings.number = self._outputs.next_number()
            self._outputs.act(Subscribe(self._openings.number, wanted.logs))

    def _unsubscribe(self, unsub: Unsub) -> None:
        feeds = (self._feeds.get(log, self._encoding) for log in unsub.logs)
        for feed in self.subscriptions.end_some(feed for feed in feeds if feed is not None):
            self._outputs.act(Unsubscribe(feed))

    def _follows(self, log: str) -> bool:
        feed = self._feeds.get(log, self._encoding)
        return feed is not None and feed in self.subscriptions

    def _release(self, feed: Feed) -> None:
        self.subscriptions.end(feed)
        self._outputs.act(Unsubscribe(feed))

    # --- answers of the owner ------------------------------------------------------------------------

    def subscribed(self, number: int, feed: Feed) -> None:
        """Follow one log of a `Subscribe`, which the user may read."""
        asked = self._openings.take(number, feed.log)
        if asked is None:
            self._outputs.act(Unsubscribe(feed))
            return
        if feed in self.subscriptions:
            self._release(feed)  # it is followed from a new position
        line = decide_begin(asked, feed.epoch, feed.head, feed.base)
        self.subscriptions.begin(feed, line.after)
        self._outputs.outgoing.add_line(self._openings.ref, line)
        self._outputs.has_output()
        self.begin_changes()

    def sub_refused(self, number: int, log: str, code: ErrorCode) -> None:
        """Refuse one log of a `Subscribe`: the user may not read it, or it cannot be followed now."""
        if self._openings.take(number, log) is not None:
            self._outputs.refuse(self._openings.ref, code, log=log)
            self.begin_changes()

    def gone(self, feed: Feed, code: GoneCode) -> None:
        """Stop following a log, and tell the client why."""
        if feed in self.subscriptions:
            self._outputs.say(Gone(feed.log, code))
            self._release(feed)

    def page(self, feed: Feed, after: int, pieces: Sequence[bytes]) -> bool:
        """Process a page. Return False if the log could not be read: no page is requested until `rested`."""
        return feed not in self.subscriptions or self.subscriptions.page(feed, after, pieces)

    # --- the end -------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Start no more changes, because the socket is closing."""
        self._uncounted = None
        self._openings.clear()

    def end(self) -> None:
        """Stop following all logs, because the socket is closed."""
        self.stop()
        for feed in self.subscriptions.end_all():
            self._outputs.act(Unsubscribe(feed))
        self._outputs.end()

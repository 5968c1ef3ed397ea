"""Follows a log: releases its items in order and once each, however the bus delivers them.

Items come from this replica's own commits, from the bus (which may drop, repeat, delay and reorder), and from the log
itself. A gap that is still open after `GAP_GRACE_SECS` (limits.py) is read from the log. A tail check finds a lost last item.
Two reads of the head distinguish a log that went back, because its database lost commits, from one stale read.

Time passes in the procedures that drive the follower. An owner of many logs reads all heads in one query.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Generic, NamedTuple, Protocol, TypeVar

from openguild_proto.limits import GAP_GRACE_SECS, ROOM_LOOK_SECS
from openguild_proto.log.sequencer import Sequencer
from openguild_proto.procedures import Procedure, Procedures, Sleep

T = TypeVar("T")


class Item(NamedTuple, Generic[T]):
    """One item of a log."""

    sequence: int
    item: T
    nbytes: int = 0


class FollowerPosition(NamedTuple):
    """The position of a follower when a read of its log began."""

    head: int
    restarts: int


class LogSource(Protocol[T]):
    """The source and the destination of a follower's items. One object may serve many followers."""

    def read(self, after: int, before: int) -> Procedure[Sequence[Item[T]]]:
        """Read a page of items with after < sequence < before, in order; later ones may follow. Raises StorageUnavailable."""

    def release(self, sequence: int, item: T) -> None:
        """Take the next item, in order and once. It must not raise or call the follower, whose head is already past the items
        that it releases next."""

    def has_room(self) -> bool:
        """Return whether items can be accepted now. The others are read from the log later."""

    def is_followed(self) -> bool:
        """Return whether the log still has readers; otherwise reading stops."""

    def truncated(self, first: int | None) -> int | None:
        """Handle that the log no longer has the missing items: it begins at `first`, or is empty (None).

        Return the head to restart from, or None to leave the gap.
        """

    def counted(self, items: int) -> None:
        """Count the items read from the log to fill a gap."""


class TailCheck(Enum):
    """The result of a read of the log's head."""

    SAME = "same"
    FURTHER = "further"  # the rest will be read
    SHORT = "short"  # before the released items: read again, because one read may be stale


class LogFollower(Generic[T]):
    """Releases the items of one log. `head`: the last sequence released; nothing is released before `begin` sets it."""

    __slots__ = ("_asked", "_has_received", "_procedures", "_reading", "_restarts", "_sequencer", "_source")

    def __init__(self, source: LogSource[T], procedures: Procedures, head: int | None = None) -> None:
        self._sequencer: Sequencer[T] = Sequencer(head)
        self._source = source
        self._procedures = procedures
        self._restarts = 0
        self._reading = False  # a gap is being read, or will be after its grace period
        self._has_received = False  # the bus has delivered a new item since the last tail check
        self._asked = False  # the last tail check read the log

    @property
    def head(self) -> int:
        """The newest sequence released."""
        return self._sequencer.head

    @property
    def seen(self) -> int:
        """The newest known sequence."""
        return self._sequencer.seen

    @property
    def place(self) -> FollowerPosition:
        """The current position. Pass it to `tail_read` with the head that is read."""
        return FollowerPosition(self._sequencer.head, self._restarts)

    @property
    def begun(self) -> bool:
        """Whether the log's head is known."""
        return self._sequencer.begun

    @property
    def is_reading(self) -> bool:
        """Whether a gap is being read."""
        return self._reading

    def missing(self) -> tuple[int, int] | None:
        """Return the first gap as (after, before), both exclusive, or None."""
        return self._sequencer.missing()

    # --- items ---------------------------------------------------------------------------------------

    def begin(self, head: int) -> None:
        """Set the head, and release the offered items that follow it. Raises LocalProtocolError if it was set before."""
        self._release(self._sequencer.begin(head))

    def restart(self, head: int) -> None:
        """Restart at `head` with another log. Drops held items and running reads."""
        self._restarts += 1
        self._sequencer.restart(head)

    def offer(self, sequence: int, item: T, nbytes: int = 0) -> None:
        """Handle an item from any source. Repeats are ignored."""
        if self._source.has_room():
            self._release(self._sequencer.offer(sequence, item, nbytes))
        else:
            self._sequencer.saw_head(sequence)
            self._watch_gap()

    def received(self, sequence: int, item: T, nbytes: int = 0) -> None:
        """Handle an item from the bus. A new one shows that the bus delivers this log."""
        # Repeats and own commits prove nothing.
        self._has_received = self._has_received or sequence > self.head
        self.offer(sequence, item, nbytes)

    def saw_head(self, head: int) -> None:
        """Record that the log reaches `head`. Missing items will be read."""
        self._sequencer.saw_head(head)
        self._watch_gap()

    def _release(self, items: list[tuple[int, T]]) -> None:
        for sequence, item in items:
            self._source.release(sequence, item)
        self._watch_gap()

    # --- gaps ----------------------------------------------------------------------------------------

    def _watch_gap(self) -> None:
        if not self._reading and self._sequencer.missing() is not None:
            self._reading = True
            self._procedures.start(self._read_after_grace(), "reading a gap from the log")

    def _read_after_grace(self) -> Procedure[None]:
        try:
            # Results of one batch arrive in any order, and the bus may overtake them.
            yield from Sleep(GAP_GRACE_SECS).wait()
            yield from self.read_missing()
        finally:
            self._reading = False

    def read_missing(self) -> Procedure[None]:
        """Read until nothing is missing. Raises StorageUnavailable; the next tail check retries."""
        sequencer, source = self._sequencer, self._source
        while source.is_followed() and (gap := sequencer.missing()) is not None:
            if not source.has_room():
                yield from Sleep(ROOM_LOOK_SECS).wait()
                continue
            (after, before), place = gap, self.place
            page = yield from source.read(after, before)
            if self.place != place:
                continue  # the items have arrived, or the log went back
            if not page or page[0].sequence > after + 1:
                anew = source.truncated(page[0].sequence if page else None)
                if anew is None:
                    return
                self.restart(anew)
            self._take(page)

    def _take(self, page: Sequence[Item[T]]) -> None:
        if not self._source.is_followed():
            return
        for sequence, item, nbytes in page:
            for released in self._sequencer.offer(sequence, item, nbytes):
                self._source.release(*released)
        self._source.counted(len(page))

    def catch_up(self, head: int) -> Procedure[None]:
        """Release at least everything up to `head`. Raises StorageUnavailable."""
        if self.begun and self.head < head:
            self._sequencer.saw_head(head)
            yield from self.read_missing()

    # --- the tail ------------------------------------------------------------------------------------

    def wants_check(self, *, deaf: bool, everything: bool) -> bool:
        """Return whether this tail check reads the log: not if the bus delivered a new item since, and never twice in a row.

        A lost last item is found within two checks. `deaf`: the bus is down. `everything`: any log may have lost an item.
        """
        quiet = not self._asked and (deaf or not self._has_received)
        self._asked = self.begun and (everything or quiet)
        self._has_received = False
        return self._asked

    def tail_read(self, place: FollowerPosition, head: int) -> TailCheck:
        """Compare a read head with the follower's position `place` when the read began. Ignores reads from before a restart."""
        if place.restarts != self._restarts:
            return TailCheck.SAME
        if head > self.head:
            self.saw_head(head)
            return TailCheck.FURTHER
        return TailCheck.SHORT if head < place.head else TailCheck.SAME

    def went_back(self, place: FollowerPosition, first: int, second: int) -> bool:
        """Return whether two reads begun at `place` show that the log lost items. One read alone may be stale.

        Return False after a `restart` in between.
        """
        return place.restarts == self._restarts and self._sequencer.went_back(place.head, first, second)

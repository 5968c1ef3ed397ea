"""Following a log: in order, each item once, whatever the wire between its writers and this reader does.

Three sources meet here: what the owner stored itself, what a wire brought (it may drop, repeat, delay and reorder), and the
log, which is the truth. A hole that does not close by itself within `GAP_GRACE_SECS` is read from the log. A tail check finds a
last item that the wire lost. A log that went back (its database lost commits) is told from a stale reading by asking twice.

Time passes through the procedures that drive it; an owner of many logs asks for all their heads in one query.
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
    """One place of a log as it was read."""

    sequence: int
    item: T
    nbytes: int = 0


class Place(NamedTuple):
    """Where a follower stood when a reading of its log was asked for."""

    head: int
    restarts: int


class LogSource(Protocol[T]):
    """Where a follower's items come from and where they go. One object may serve many followers of one kind."""

    def read(self, after: int, before: int) -> Procedure[Sequence[Item[T]]]:
        """Read items with after < sequence < before, in order, one page of them; it may return more. Raises StorageUnavailable."""

    def release(self, sequence: int, item: T) -> None:
        """The next item, in order and once."""

    def has_room(self) -> bool:
        """False: nothing can be taken now that can be read from the log later."""

    def is_followed(self) -> bool:
        """False: nobody wants this log any more; what is under way stops."""

    def truncated(self, first: int | None) -> int | None:
        """The log does not have what is missing: it begins at `first`, or is empty (None). Returns the head to begin anew from,
        or None to leave it as it is."""

    def counted(self, items: int) -> None:
        """A hole was read from the log: so many items."""


class Tail(Enum):
    """What a reading of the log's head says."""

    SAME = "same"
    FURTHER = "further"  # the rest will be read
    SHORT = "short"  # behind what was released: read it again, one reading may be stale


class LogFollower(Generic[T]):
    """`head` is the last sequence released. Without a head (before `begin`) nothing is released."""

    __slots__ = ("_asked", "_heard", "_procedures", "_reading", "_restarts", "_sequencer", "_source")

    def __init__(self, source: LogSource[T], procedures: Procedures, head: int | None = None) -> None:
        self._sequencer: Sequencer[T] = Sequencer(head)
        self._source = source
        self._procedures = procedures
        self._restarts = 0
        self._reading = False  # a hole is being read, or will be after its grace
        self._heard = False  # the wire has brought something new since the last tail check
        self._asked = False  # the last tail check asked the log

    @property
    def head(self) -> int:
        """The newest sequence released."""
        return self._sequencer.head

    @property
    def seen(self) -> int:
        """The newest sequence heard of."""
        return self._sequencer.seen

    @property
    def place(self) -> Place:
        """Where it stands: give it back with what was read of the log's head."""
        return Place(self._sequencer.head, self._restarts)

    @property
    def begun(self) -> bool:
        """Whether the log's head is known."""
        return self._sequencer.begun

    @property
    def is_reading(self) -> bool:
        """Whether a hole is being read."""
        return self._reading

    def missing(self) -> tuple[int, int] | None:
        """The first hole as (after, before), both exclusive, or None."""
        return self._sequencer.missing()

    # --- what arrives --------------------------------------------------------------------------------

    def begin(self, head: int) -> None:
        """The log stands at `head`; what came before this and follows it is released."""
        self._release(self._sequencer.begin(head))

    def restart(self, head: int) -> None:
        """Another log, which stands at `head`: nothing that waits or is being read belongs to it."""
        self._restarts += 1
        self._sequencer.restart(head)

    def offer(self, sequence: int, item: T, nbytes: int = 0) -> None:
        """An item, from wherever it came. Repeats do nothing."""
        if self._source.has_room():
            self._release(self._sequencer.offer(sequence, item, nbytes))
        else:
            self._sequencer.saw_head(sequence)
            self._watch_hole()

    def hear(self, sequence: int, item: T, nbytes: int = 0) -> None:
        """An item that the wire brought; news of a log shows that the wire works for it."""
        self._heard = self._heard or sequence > self.head  # a repeat proves nothing, nor does what was stored here
        self.offer(sequence, item, nbytes)

    def saw_head(self, head: int) -> None:
        """The log reaches at least to `head`: what is missing will be read."""
        self._sequencer.saw_head(head)
        self._watch_hole()

    def _release(self, items: list[tuple[int, T]]) -> None:
        for sequence, item in items:
            self._source.release(sequence, item)
        self._watch_hole()

    # --- holes ---------------------------------------------------------------------------------------

    def _watch_hole(self) -> None:
        if not self._reading and self._sequencer.missing() is not None:
            self._reading = True
            self._procedures.start(self._read_after_grace(), "reading a gap from the log")

    def _read_after_grace(self) -> Procedure[None]:
        try:
            yield from Sleep(
                GAP_GRACE_SECS
            ).wait()  # commits of one batch answer in any order; the wire may overtake them
            yield from self.read_missing()
        finally:
            self._reading = False

    def read_missing(self) -> Procedure[None]:
        """Read until nothing is missing. Raises StorageUnavailable; the next tail check tries again."""
        sequencer, source = self._sequencer, self._source
        while source.is_followed() and (hole := sequencer.missing()) is not None:
            if not source.has_room():
                yield from Sleep(ROOM_LOOK_SECS).wait()
                continue
            (after, before), place = hole, self.place
            page = yield from source.read(after, before)
            if self.place != place:
                continue  # what was missing came meanwhile, or the log went back
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
        """Whether this tail check asks the log: not for a log that was heard since, and never twice in a row.

        So two checks are the time that a lost last item may take: what comes before it puts the log off by one check, and the next
        one finds it. `deaf`: the wire is down. `everything`: something may have been lost for all.
        """
        quiet = not self._asked and (deaf or not self._heard)
        self._asked = self.begun and (everything or quiet)
        self._heard = False
        return self._asked

    def tail_read(self, place: Place, head: int) -> Tail:
        """The log's head was read as `head`, asked for at `place`. A reading of a log before a restart says nothing."""
        if place.restarts != self._restarts:
            return Tail.SAME
        if head > self.head:
            self.saw_head(head)
            return Tail.FURTHER
        return Tail.SHORT if head < place.head else Tail.SAME

    def went_back(self, place: Place, first: int, second: int) -> bool:
        """Whether two readings asked for at `place` show that the log lost what it had; one alone may be stale.

        False when `restart` was called meanwhile.
        """
        return place.restarts == self._restarts and self._sequencer.went_back(place.head, first, second)

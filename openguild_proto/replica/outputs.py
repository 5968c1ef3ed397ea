"""The outputs of a replica: queued actions and counters."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.fanout.hub import Hub
from openguild_proto.limits import MAX_WAITING_WORKS, SOCKETS_AT_ONCE
from openguild_proto.procedures import Procedure, Procedures, Signal
from openguild_proto.replica.actions import PASS, AnyAction, Flush, Level, Log, Query, Urgency

T = TypeVar("T")
_END = object()  # marks the end of an iterator


class Counters:
    """Totals since the start, for metrics."""

    __slots__ = (
        "backfilled", "delivered", "dropped", "gaps", "lagged", "missed", "renewals", "replayed", "subscribers", "undelivered",
    )  # fmt: skip

    def __init__(self) -> None:
        self.delivered = 0  # events sent to some local subscriber
        self.undelivered = 0  # events without a local follower
        self.dropped = 0  # events not sent to a subscriber before its stream ended
        self.gaps = 0  # gaps read from the log
        self.backfilled = 0  # events read for gaps
        self.lagged = 0  # subscribers closed because they were too slow
        self.missed = 0  # events that these had not received
        self.renewals = 0  # renewals of all epochs, as counted by the database
        self.replayed = 0  # events sent from the log
        self.subscribers = 0  # current number

    def snapshot(self) -> dict[str, int]:
        """Return all counters by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class _Part:
    """The next items of a work. `done` is set after the last of them, also if the work fails."""

    def __init__(self, rest: Iterator[Any], done: Signal) -> None:
        self.done = done
        self.is_last = False
        self._rest = rest

    def __iter__(self) -> Iterator[Any]:
        try:
            for _ in range(SOCKETS_AT_ONCE):
                item = next(self._rest, _END)
                if item is _END:
                    self.is_last = True
                    return
                yield item
        finally:
            self.done.set()


class Outputs:
    """The queue of actions.

    Work on very many sockets (a "work") waits as an iterator, and each of its actions is decided when it is taken.
    """

    def __init__(self, hub: Hub) -> None:
        self.counters = Counters()
        self.procedures = Procedures(self.defect)
        self._hub = hub
        self._actions: deque[AnyAction] = deque()
        self._works: deque[tuple[Iterator[Any], Callable[[Any], AnyAction | None]]] = deque()
        self._to_flush: set[str] = set()  # rings whose Flush has not been taken

    # --- deciding ------------------------------------------------------------------------------------

    def add(self, action: AnyAction) -> None:
        """Queue an action."""
        self._actions.append(action)

    def add_each(self, items: Iterable[T], decide: Callable[[T], AnyAction | None]) -> None:
        """Queue a work after the others: the actions that `decide` returns for each item, in order.

        Each is decided when it is taken, so `items` must not change meanwhile.
        """
        self._works.append((iter(items), decide))

    def each(self, items: Iterable[T], decide: Callable[[T], AnyAction | None]) -> Procedure[None]:
        """Do as `add_each`, in batches, so that other works get their turn. Return when all items are done."""
        rest = iter(items)
        while True:
            part = _Part(rest, Signal(self.procedures))
            self.add_each(part, decide)
            yield from part.done.wait()
            if part.is_last:
                return

    def log(self, level: Level, message: str, **fields: Any) -> None:
        """Queue a log line for the operator."""
        self._actions.append(Log(level, message, fields))

    def publish(self, ring: str, frame: bytes, sequence: int) -> Flush | None:
        """Append a frame to an open ring. Return the flush that sends it, or None if one is queued."""
        if self._hub.publish(ring, frame, sequence):
            # if it fills a second time before a flush, hold up the loop rather than overrun readers
            urgency = Urgency.NOW if self._hub.stretch(ring) else Urgency.COMPLETELY
            return Flush(ring, urgency)
        if ring in self._to_flush:
            return None
        self._to_flush.add(ring)
        return Flush(ring)

    def mark(self, ring: str) -> None:
        """Queue a flush of `ring`, unless one is queued."""
        if ring not in self._to_flush:
            self._to_flush.add(ring)
            self._actions.append(Flush(ring))

    def defect(self, what: str, failure: Exception) -> None:
        """Log a failure caused by a defect of the server, with its traceback."""
        self._actions.append(Log(Level.ERROR, f"{what}: failed", failure=failure))

    def not_read(self, failure: Exception, what: str, message: str, **fields: Any) -> None:
        """Log that the data for `what` could not be read: `message` if storage is unavailable, otherwise a defect."""
        if isinstance(failure, StorageUnavailable):
            self.log(Level.WARNING, message, **fields)
        else:
            self.defect(what, failure)

    # --- carrying out --------------------------------------------------------------------------------

    def next_action(self, *, works: bool = True) -> AnyAction | None:
        """Return the next action, or None. `works`: include works on many sockets."""
        action = self._take(works=works)
        if isinstance(action, Flush):
            self._to_flush.discard(action.ring)
        return action

    def _take(self, *, works: bool) -> AnyAction | None:
        while True:
            query = self.procedures.take_query()
            if query is not None:
                return Query(*query)
            if self._actions:
                return self._actions.popleft()
            if not (works and self._works):
                return None
            items, decide = self._works[0]
            try:
                item = next(items, _END)
            except Exception as failure:  # drop this work, and go on with the others
                self._works.popleft()
                return Log(Level.ERROR, "work for many sockets broke off", failure=failure)
            if item is _END:  # a procedure that waited for it may have added a query or an action
                self._works.popleft()
                continue
            try:
                return decide(item) or PASS
            except Exception as failure:  # go on with the next item
                return Log(Level.ERROR, "work for many sockets failed", failure=failure)

    @property
    def is_pressed(self) -> bool:
        """Whether so many works are queued that they must be done now, to bound the queue."""
        return len(self._works) > MAX_WAITING_WORKS

"""The outputs of a replica: its pending actions, and its counters."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from openguild_proto.fanout.hub import Hub
from openguild_proto.limits import MAX_WAITING_WORKS, SOCKETS_AT_ONCE
from openguild_proto.procedures import Procedure, Procedures, Signal
from openguild_proto.replica.actions import PASS, AnyAction, Flush, Level, Log, Query, Urgency

T = TypeVar("T")
_END = object()  # of an iterator


class Counters:
    """Totals since the start, for metrics."""

    __slots__ = (
        "backfilled", "delivered", "dropped", "gaps", "lagged", "missed", "renewals", "replayed", "subscribers", "undelivered",
    )  # fmt: skip

    def __init__(self) -> None:
        self.delivered = 0  # events given to some subscriber here
        self.undelivered = 0  # events that nobody here follows
        self.dropped = 0  # events that a subscriber did not get before its end
        self.gaps = 0  # holes read from the log
        self.backfilled = 0  # events read for them
        self.lagged = 0  # subscribers closed because they were too slow
        self.missed = 0  # events that those had not got
        self.renewals = 0  # of all epochs, as the database counts them
        self.replayed = 0  # events sent from the log
        self.subscribers = 0  # there are now

    def snapshot(self) -> dict[str, int]:
        """All of them by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class _Part:
    """The next items of a job; `done` is set after the last of them, also if the job fails."""

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
    """Actions in order. A job for very many sockets waits as an iterator, and each of its actions is created when it is taken."""

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
        """Queue the actions that `decide` returns for each item, in order, after other jobs; each is decided when it is taken.

        The items must not change meanwhile.
        """
        self._works.append((iter(items), decide))

    def each(self, items: Iterable[T], decide: Callable[[T], AnyAction | None]) -> Procedure[None]:
        """As `add_each`, some items at a time, so that newer jobs get turns. Return when all are done."""
        rest = iter(items)
        while True:
            part = _Part(rest, Signal(self.procedures))
            self.add_each(part, decide)
            yield from part.done.wait()
            if part.is_last:
                return

    def log(self, level: Level, message: str, **fields: Any) -> None:
        """Queue a log line."""
        self._actions.append(Log(level, message, fields))

    def publish(self, ring: str, frame: bytes, sequence: int) -> Flush | None:
        """Append a frame to an open ring. Return the flush that sends it, None: one is already queued."""
        if self._hub.publish(ring, frame, sequence):
            # twice too much before it was flushed: to lose readers would be worse than to be late
            urgency = Urgency.NOW if self._hub.stretch(ring) else Urgency.COMPLETELY
            return Flush(ring, urgency)
        if ring in self._to_flush:
            return None
        self._to_flush.add(ring)
        return Flush(ring)

    def mark(self, ring: str) -> None:
        """Some subscriber of `ring` is behind."""
        if ring not in self._to_flush:
            self._to_flush.add(ring)
            self._actions.append(Flush(ring))

    def defect(self, what: str, failure: Exception) -> None:
        """Log the traceback of a bug."""
        self._actions.append(Log(Level.ERROR, f"{what}: failed", failure=failure))

    # --- carrying out --------------------------------------------------------------------------------

    def next_action(self, *, works: bool = True) -> AnyAction | None:
        """Return the next action; None: there is none. `works`: include jobs for many sockets."""
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
            except Exception as failure:  # contained: what else waits is done, the rest of this work cannot be known
                self._works.popleft()
                return Log(Level.ERROR, "work for many sockets broke off", failure=failure)
            if item is _END:  # a procedure that waited for that may have gone on, with a query or an action
                self._works.popleft()
                continue
            try:
                return decide(item) or PASS
            except Exception as failure:  # contained: the others do not suffer
                return Log(Level.ERROR, "work for many sockets failed", failure=failure)

    @property
    def is_pressed(self) -> bool:
        """Whether so many jobs wait that they must be done now, without a time limit: an unbounded queue would hide that."""
        return len(self._works) > MAX_WAITING_WORKS

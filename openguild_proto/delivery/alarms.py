"""Timers of peers, whose times change often. The heap holds about one entry for each peer."""

from __future__ import annotations

import heapq
from collections.abc import Iterator


class Alarms:
    """At most one time for each name.

    When a time moves to later, the heap keeps the early entry; `take_due` then puts it back with the later time.
    """

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._first: dict[str, float] = {}  # the earliest entry of a name in the heap
        self._heap: list[tuple[float, str]] = []

    def set(self, name: str, due: float) -> None:
        """Set the time of `name`, in place of an earlier setting."""
        self._due[name] = due
        if due < self._first.get(name, float("inf")):
            self._first[name] = due
            heapq.heappush(self._heap, (due, name))

    def clear(self, name: str) -> None:
        """Remove the time of `name`."""
        self._due.pop(name, None)

    def next(self) -> float | None:
        """Return a time before which no name is due, or None without any time."""
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: float) -> Iterator[str]:
        """Remove and return the names that are due."""
        while self._heap and self._heap[0][0] <= now:
            time, name = heapq.heappop(self._heap)
            if self._first.get(name) != time:
                continue  # an earlier entry of this name has replaced this one
            del self._first[name]
            due = self._due.get(name)
            if due is None:
                continue
            if due <= now:
                del self._due[name]
                yield name
            else:
                self.set(name, due)

    def __len__(self) -> int:
        return len(self._heap)

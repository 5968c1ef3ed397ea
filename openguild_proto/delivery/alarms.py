"""Wakes peers at times that may change. The heap has about one entry per peer."""

from __future__ import annotations

import heapq
from collections.abc import Iterator


class Alarms:
    """A time for each of some names. If a time moves later, its heap entry is pushed again when it comes up."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._first: dict[str, float] = {}  # the earliest heap entry of each name
        self._heap: list[tuple[float, str]] = []

    def set(self, name: str, due: float) -> None:
        """Set or move the time of `name`."""
        self._due[name] = due
        if due < self._first.get(name, float("inf")):
            self._first[name] = due
            heapq.heappush(self._heap, (due, name))

    def clear(self, name: str) -> None:
        """Remove the time of `name`."""
        self._due.pop(name, None)

    def next(self) -> float | None:
        """Return a time before which nothing is due, or None."""
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: float) -> Iterator[str]:
        """Remove and return the names that are due."""
        while self._heap and self._heap[0][0] <= now:
            time, name = heapq.heappop(self._heap)
            if self._first.get(name) != time:
                continue  # an earlier entry has replaced it
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

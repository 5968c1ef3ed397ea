"""The deadlines of one machine by their names, in monotonic seconds."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """The deadlines that are set. `next` only reads."""

    __slots__ = ("times",)

    def __init__(self) -> None:
        self.times: dict[K, float] = {}

    def set(self, name: K, at: float) -> None:
        """Set or move the deadline `name` to `at`, monotonic seconds."""
        self.times[name] = at

    def clear(self, name: K) -> None:
        """Stop this deadline, if it is set."""
        self.times.pop(name, None)

    def clear_all_but(self, kept: Collection[K]) -> None:
        """Stop every deadline except `kept`, which stay as they are."""
        for name in tuple(self.times):
            if name not in kept:
                del self.times[name]

    def __contains__(self, name: K) -> bool:
        return name in self.times

    def next(self) -> float | None:
        """Return the earliest deadline; None: none is set."""
        times = self.times
        return min(times.values()) if times else None

    def take_expired(self, now: float) -> K | None:
        """Remove and return the earliest deadline that has passed; None: none has.

        Returns one at a time, because acting on it may stop others.
        """
        name = min(self.times, key=self.times.__getitem__, default=None)
        if name is None or self.times[name] > now:
            return None
        del self.times[name]
        return name

    def __getitem__(self, name: K) -> float:
        """Return the time of a deadline. Raises KeyError if it is not set."""
        return self.times[name]

"""Faults that last, and how often the log speaks of them. Both rules are fed by rounds and times from outside."""

from __future__ import annotations

from collections.abc import KeysView, ValuesView
from typing import Generic, TypeVar

T = TypeVar("T")

REPEAT_SECS = 60.0  # between two lines about the same fault


class Standing(Generic[T]):
    """Each fault stands from when it is told until a whole round has passed without its being told again.

    A round is: `begin`, do again whatever could fail, wait for the answer, `end`. Keys come from a fixed set.
    """

    def __init__(self) -> None:
        self._faults: dict[str, T] = {}
        self._told: set[str] = set()

    def tell(self, key: str, fault: T) -> None:
        """It is there, now."""
        self._faults[key] = fault
        self._told.add(key)

    def begin(self) -> None:
        """A round begins."""
        self._told.clear()

    def end(self) -> list[str]:
        """The keys of the faults that are over."""
        over = [key for key in self._faults if key not in self._told]
        for key in over:
            del self._faults[key]
        return over

    def clear(self) -> None:
        """Nothing stands any more."""
        self._faults.clear()
        self._told.clear()

    def __contains__(self, key: str) -> bool:
        return key in self._faults

    def keys(self) -> KeysView[str]:
        """Of the faults that stand."""
        return self._faults.keys()

    def values(self) -> ValuesView[T]:
        """The faults that stand, the oldest first."""
        return self._faults.values()

    @property
    def first(self) -> T | None:
        """The one that has stood longest."""
        return next(iter(self._faults.values()), None)


class LogThrottle:
    """Whether it is time to speak of something again: at once the first time, then once in `every_secs`.

    Keys come from a fixed set.
    """

    def __init__(self, every_secs: float = REPEAT_SECS) -> None:
        self._every_secs = every_secs
        self._spoken: dict[str, float] = {}
        self._passed_over: dict[str, int] = {}

    def due(self, key: str, now: float) -> int | None:
        """How often it was passed over since the last line; None: not now. `now`: monotonic seconds."""
        spoken = self._spoken.get(key)
        if spoken is not None and now - spoken < self._every_secs:
            self._passed_over[key] = self._passed_over.get(key, 0) + 1
            return None
        self._spoken[key] = now
        return self._passed_over.pop(key, 0)

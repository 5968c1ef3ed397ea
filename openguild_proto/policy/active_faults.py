"""Tracks faults that last, by rounds of attempts that report those still there."""

from __future__ import annotations

from collections.abc import KeysView, ValuesView
from typing import Generic, TypeVar

T = TypeVar("T")


class ActiveFaults(Generic[T]):
    """A fault is active from its report until a whole round passes without another report of it.

    A round: call `begin_round`, retry everything that may fail, wait for the results, call `end_round`. Keys come from a
    fixed set.
    """

    def __init__(self) -> None:
        self._faults: dict[str, T] = {}
        self._reported: set[str] = set()  # in the current round

    def report(self, key: str, fault: T) -> None:
        """Add the fault, or replace it."""
        self._faults[key] = fault
        self._reported.add(key)

    def begin_round(self) -> None:
        """Forget which faults were reported before."""
        self._reported.clear()

    def end_round(self) -> list[str]:
        """Remove the faults that this round did not report, and return their keys."""
        over = [key for key in self._faults if key not in self._reported]
        for key in over:
            del self._faults[key]
        return over

    def clear(self) -> None:
        """Remove all faults."""
        self._faults.clear()
        self._reported.clear()

    def __contains__(self, key: str) -> bool:
        return key in self._faults

    def keys(self) -> KeysView[str]:
        """Return the keys of the active faults."""
        return self._faults.keys()

    def values(self) -> ValuesView[T]:
        """Return the active faults, oldest first."""
        return self._faults.values()

    @property
    def oldest(self) -> T | None:
        """The fault that has been active for longest; None: there is none."""
        return next(iter(self._faults.values()), None)

"""Tracks lasting faults by rounds of attempts, which report those that still exist."""

from __future__ import annotations

from collections.abc import KeysView, ValuesView
from typing import Generic, TypeVar

T = TypeVar("T")


class ActiveFaults(Generic[T]):
    """The active faults by key. A fault is active until a whole round passes without a report of it.

    A round: call `begin_round`, retry everything that may fail, wait for the results, call `end_round`. Keys come from a
    fixed set.
    """

    def __init__(self) -> None:
        self._faults: dict[str, T] = {}
        self._reported: set[str] = set()  # in the current round

    def report(self, key: str, fault: T) -> None:
        """Add or replace the fault."""
        self._faults[key] = fault
        self._reported.add(key)

    def begin_round(self) -> None:
        """Start a round without reports."""
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
        """The fault that has been active longest, or None."""
        return next(iter(self._faults.values()), None)

"""Counting attempts for all replicas: in sixtieths of a window, up to one sixtieth on the safe side.

PostgreSQL decides the same in one statement (`count_attempt_v1`); one suite runs on both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

BINS = 60


def bin_of(now_ms: int, window_secs: int) -> int:
    """The beginning of the sixtieth of a window that `now_ms` falls into, ms."""
    return now_ms - now_ms % _width_ms(window_secs)


def forgotten_until(now_ms: int, window_secs: int) -> int:
    """Sixtieths that begin here or before count no more, ms."""
    return now_ms - window_secs * 1000 - _width_ms(window_secs)


def decide_attempt(counted: Iterable[tuple[Mapping[int, int], int]], *, now_ms: int, window_secs: int) -> float | None:
    """One more under every key, or under none. `counted`: for each key its sixtieths (beginning in ms, attempts) that
    still count, and its limit. None: admitted. Otherwise the seconds after which it may be."""
    start = forgotten_until(now_ms, window_secs)
    waits = [(min(bins) - start) / 1000 for bins, limit in counted if bins and sum(bins.values()) >= limit]
    return max(waits, default=None)


def _width_ms(window_secs: int) -> int:
    return window_secs * 1000 // BINS

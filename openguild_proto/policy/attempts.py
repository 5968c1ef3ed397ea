"""Counts login attempts for all replicas, in bins of a sixtieth of the window. It may refuse up to one bin too long.

PostgreSQL decides the same in one statement (`count_attempt_v1`); one suite runs on both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

BINS = 60


def bin_of(now_ms: int, window_secs: int) -> int:
    """Return the start of the bin that `now_ms` is in, ms."""
    return now_ms - now_ms % _width_ms(window_secs)


def forgotten_until(now_ms: int, window_secs: int) -> int:
    """Return the time up to which bins have left the window, by their start, ms."""
    return now_ms - window_secs * 1000 - _width_ms(window_secs)


def decide_attempt(counted: Iterable[tuple[Mapping[int, int], int]], *, now_ms: int, window_secs: int) -> float | None:
    """Decide on one more attempt under all keys. None: admitted; otherwise the seconds to wait.

    `counted`: for each key its bins within the window (start in ms, attempts) and its limit.
    """
    start = forgotten_until(now_ms, window_secs)
    waits = [(min(bins) - start) / 1000 for bins, limit in counted if bins and sum(bins.values()) >= limit]
    return max(waits, default=None)


def longest_block(ends_ms: Iterable[int], now_ms: int) -> float | None:
    """Return the seconds until the last of an attempt's blocks ends; None: none is in force."""
    return max(((end - now_ms) / 1000 for end in ends_ms if end > now_ms), default=None)


def _width_ms(window_secs: int) -> int:
    return window_secs * 1000 // BINS

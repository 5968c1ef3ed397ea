"""Counts login attempts of all replicas in bins of a sixtieth of the window. A refusal may last one bin too long.

PostgreSQL decides the same in one statement (`count_attempt_v1`). One test suite runs on both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

BINS = 60


def bin_of(now_ms: int, window_secs: int) -> int:
    """Return the start of the bin of `now_ms`, in ms."""
    return now_ms - now_ms % _width_ms(window_secs)


def forgotten_until(now_ms: int, window_secs: int) -> int:
    """Return the start of the newest bin that has left the window, in ms."""
    return now_ms - window_secs * 1000 - _width_ms(window_secs)


def decide_attempt(counted: Iterable[tuple[Mapping[int, int], int]], *, now_ms: int, window_secs: int) -> float | None:
    """Decide on one more attempt under all keys. Return None to admit it, else the seconds to wait.

    `counted`: for each key its bins within the window (start in ms, attempts), and its limit.
    """
    start = forgotten_until(now_ms, window_secs)
    waits = [(min(bins) - start) / 1000 for bins, limit in counted if bins and sum(bins.values()) >= limit]
    return max(waits, default=None)


def longest_block(ends_ms: Iterable[int], now_ms: int) -> float | None:
    """Return the seconds until the last of these blocks ends, or None if all have ended."""
    return max(((end - now_ms) / 1000 for end in ends_ms if end > now_ms), default=None)


def _width_ms(window_secs: int) -> int:
    return window_secs * 1000 // BINS

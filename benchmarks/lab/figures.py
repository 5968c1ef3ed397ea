"""Medians with their range, and ratios of paired measurements with a confidence interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101,
    2.093, 2.086,
)  # fmt: skip
"""Two-sided critical values of Student's t, by degrees of freedom from 1. More than 20 count as 20."""


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return the median, the lowest and the highest value, and the number of values."""
    return {
        "median": rounded(statistics.median(values)), "low": rounded(min(values)), "high": rounded(max(values)),
        "runs": len(values),
    }  # fmt: skip


def rounded(value: float) -> float:
    """Return the value rounded to four significant digits, as further digits are noise."""
    return float(f"{value:.4g}")


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Return the geometric mean of the ratios of pairs, and its 95% confidence interval (Student's t).

    Both values of a pair are of the same round, so a slow minute of the machine cancels out. One round has no interval:
    `low` and `high` are then the ratio.
    """
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    mean, error = statistics.fmean(logs), 0.0
    if len(logs) > 1:
        error = T_95[min(len(logs) - 1, len(T_95)) - 1] * statistics.stdev(logs) / math.sqrt(len(logs))
    low, middle, high = (rounded(math.exp(mean + side * error)) for side in (-1, 0, 1))
    return {"ratio": middle, "runs": len(logs), "low": low, "high": high}


def shown(found: dict[str, Any] | None) -> str:
    """Format a ratio for a table, with its interval if it has one. None gives an empty string."""
    if found is None:
        return ""
    return f"{found['ratio']:.2f}" + (f" ({found['low']:.2f} to {found['high']:.2f})" if found["runs"] > 1 else "")


def verdict(found: dict[str, Any]) -> str:
    """Return "less" or "MORE" if the whole interval is below or above 1. Otherwise, return an empty string."""
    if found["runs"] < 2 or found["low"] <= 1 <= found["high"]:
        return ""
    return "less" if found["high"] < 1 else "MORE"

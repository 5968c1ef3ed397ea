"""Medians with their spread, and ratios of windows that were measured side by side, with a confidence interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101,
    2.093, 2.086,
)  # fmt: skip
"""Two-sided, by degrees of freedom from 1; few rounds know little of their own spread. More than 20 count as 20."""


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return the median, the lowest and highest value, and their number."""
    return {
        "median": rounded(statistics.median(values)), "low": rounded(min(values)), "high": rounded(max(values)),
        "runs": len(values),
    }  # fmt: skip


def rounded(value: float) -> float:
    """Return the value with four significant digits: more is noise."""
    return float(f"{value:.4g}")


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Return the geometric mean of the ratios of pairs, and the interval that holds it with a confidence of 95% (Student's t).

    Each pair is of one round, so that a slow minute of the machine divides out. One round has no interval.
    """
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    mean, error = statistics.fmean(logs), 0.0
    if len(logs) > 1:
        error = T_95[min(len(logs) - 1, len(T_95)) - 1] * statistics.stdev(logs) / math.sqrt(len(logs))
    low, middle, high = (rounded(math.exp(mean + side * error)) for side in (-1, 0, 1))
    return {"ratio": middle, "runs": len(logs), "low": low, "high": high}


def shown(found: dict[str, Any] | None) -> str:
    """Return a ratio with its interval, as in a table; without one where there is none."""
    if found is None:
        return ""
    return f"{found['ratio']:.2f}" + (f" ({found['low']:.2f} to {found['high']:.2f})" if found["runs"] > 1 else "")


def verdict(found: dict[str, Any]) -> str:
    """Return what an interval says about more or less than 1; nothing where there is none."""
    if found["runs"] < 2 or found["low"] <= 1 <= found["high"]:
        return ""
    return "less" if found["high"] < 1 else "MORE"

"""Medians with their spread, and ratios of windows that were measured side by side, with a confidence interval."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from typing import Any

DRAWS = 2_000  # of the bootstrap
CONFIDENCE = 0.95


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
    """Return the geometric mean of the ratios of pairs, and the interval that holds it with CONFIDENCE, by bootstrap.

    Each pair is of one round, so that a slow minute of the machine divides out. One round has no interval.
    """
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    found = {"ratio": rounded(math.exp(statistics.fmean(logs))), "runs": len(logs)}
    if len(logs) < 2:
        return found | {"low": found["ratio"], "high": found["ratio"]}
    draw = random.Random(1)
    means = sorted(statistics.fmean(draw.choices(logs, k=len(logs))) for _ in range(DRAWS))
    edge = int(DRAWS * (1 - CONFIDENCE) / 2)
    return found | {"low": rounded(math.exp(means[edge])), "high": rounded(math.exp(means[-1 - edge]))}

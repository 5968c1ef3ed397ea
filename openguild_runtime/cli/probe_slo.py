"""Compares the metrics of a window of time with the playbook's thresholds, to validate a deployment.

A window is the time between two readings of `/metrics`. A single reading covers the time since the process started, which hides
current problems of an old process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

P95_LIMIT_SECS = 0.75  # playbook: HTTP p95
QUEUE_DEPTH_LIMIT = 196  # playbook: per channel
SERVER_ERROR_SHARE = 0.001  # SLO: 99.9% of requests do not fail because of the server
SERVER_FAULTS = frozenset(
    {"500", "502", "504"}
)  # as in the alert rules: anyone can cause 501 and 505, and 503 is normal under load

Sample = tuple[str, dict[str, str], float]
GROWING = ("_total", "_bucket", "_count", "_sum")


class Finding(NamedTuple):
    """The problem with one objective, or None. `note` tells why it was not checked."""

    problem: str | None
    note: str = ""


class Restarted(ValueError):
    """The readings are of different processes."""


def check_slo(text: str, before: str | None = None) -> dict[str, Finding]:
    """Check each objective in the window from the reading `before`, or from the server's start, to the reading `text`.

    A missing series is a problem unless it is optional. Raises Restarted, and ValueError for invalid metrics.
    """
    samples = list(_samples(text))
    present = {name for name, _, _ in samples}
    if "openguild_build_info" not in present:
        raise ValueError("openguild_build_info is missing")
    if before is not None:
        samples = _within(samples, list(_samples(before)))
    return {
        name: Finding(check(samples)) if series in present else _absent(series)
        for name, (series, check) in OBJECTIVES.items()
    }


def _within(after: list[Sample], before: list[Sample]) -> list[Sample]:
    """Return the growth of counters, and the gauges of both readings. Raises Restarted."""
    if _starts(after) != _starts(before):
        raise Restarted(
            "the server was restarted within the window, or another instance answered: set --metrics-url to one instance"
        )
    grown: list[Sample] = []
    earlier = {(name, *sorted(labels.items())): value for name, labels, value in before}
    for name, labels, value in after:
        if not name.endswith(GROWING):
            grown.append((name, labels, value))
            continue
        grown.append((name, labels, value - earlier.get((name, *sorted(labels.items())), 0.0)))
    return grown + [sample for sample in before if not sample[0].endswith(GROWING)]


def _starts(samples: list[Sample]) -> set[tuple[str | None, float]]:
    return {(labels.get("worker"), value) for name, labels, value in samples if name == "process_start_time_seconds"}


def _absent(series: str) -> Finding:
    return Finding(None, "not configured") if series in OPTIONAL else Finding(f"{series} is missing")


def _samples(text: str) -> Iterator[Sample]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def _latency(samples: list[Sample]) -> str | None:
    buckets: dict[float, float] = {}
    for name, labels, value in samples:
        if name == "openguild_http_request_duration_seconds_bucket":
            bound = float(labels["le"])
            buckets[bound] = buckets.get(bound, 0.0) + value
    total = buckets.get(math.inf, 0.0)
    if total == 0:
        return "no request was counted"
    within = min(bound for bound, count in buckets.items() if count >= 0.95 * total)
    return None if within <= P95_LIMIT_SECS else f"95% of requests need up to {within} s, {P95_LIMIT_SECS} allowed"


def _errors(samples: list[Sample]) -> str | None:
    counts = [(labels, value) for name, labels, value in samples if name == "openguild_http_requests_total"]
    total = sum(value for _, value in counts)
    failed = sum(value for labels, value in counts if labels["status"] in SERVER_FAULTS)
    return None if failed <= SERVER_ERROR_SHARE * total else f"{failed:.0f} of {total:.0f} requests failed"


def _dropped(samples: list[Sample]) -> str | None:
    counts = [
        value
        for name, labels, value in samples
        if name == "openguild_messaging_events_total" and labels.get("outcome") == "dropped"
    ]
    if not counts:
        return 'openguild_messaging_events_total{outcome="dropped"} is missing'
    return f"{sum(counts):.0f} events were dropped" if any(counts) else None


def _depth(samples: list[Sample]) -> str | None:
    deepest = max(_values(samples, "openguild_websocket_queue_depth_max"))
    return f"a subscriber is {deepest:.0f} events behind" if deepest > QUEUE_DEPTH_LIMIT else None


def _database(samples: list[Sample]) -> str | None:
    return "the database cannot be used" if min(_values(samples, "openguild_db_ready")) < 1 else None


def _nats(samples: list[Sample]) -> str | None:
    return "NATS is away" if min(_values(samples, "openguild_nats_connected")) < 1 else None


def _values(samples: list[Sample], wanted: str) -> list[float]:
    return [value for name, _, value in samples if name == wanted]


OBJECTIVES: dict[str, tuple[str, Callable[[list[Sample]], str | None]]] = {
    "latency": ("openguild_http_request_duration_seconds_bucket", _latency),
    "errors": ("openguild_http_requests_total", _errors),
    "dropped": ("openguild_messaging_events_total", _dropped),
    "queue depth": ("openguild_websocket_queue_depth_max", _depth),
    "database": ("openguild_db_ready", _database),
    "nats": ("openguild_nats_connected", _nats),
}  # by objective: the required series, and the check
OPTIONAL = frozenset({"openguild_nats_connected"})  # absent without `nats.url`
